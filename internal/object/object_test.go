package object

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/name, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test -update writes it anew):\n%s", path, got)
	}
}

// Everything that an object can say is in the spec: compared with a file that a person has read.
func TestParse(t *testing.T) {
	spec, err := Load("testdata/everything.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", spec.Name, spec.Help)
	for _, h := range spec.Hooks {
		fmt.Fprintf(&b, "hook %+v\n", h)
	}
	for _, p := range spec.Params {
		fmt.Fprintf(&b, "param %+v\n", p)
	}
	for _, s := range spec.Streams {
		fmt.Fprintf(&b, "stream %s %q %d bytes\n", s.Name, s.Help, s.RecordSize)
		for _, l := range s.Fields {
			fmt.Fprintf(&b, "  field %+v\n", l)
		}
	}
	for _, r := range spec.Readers {
		fmt.Fprintf(&b, "reader %s %s %s key %d value %d overflow %v\n", r.Name, r.Kind, r.Function, r.KeySize, r.ValueSize, r.Overflow)
		for _, l := range r.Key {
			fmt.Fprintf(&b, "  key %+v\n", l)
		}
		for _, m := range r.Metrics {
			labels := make([]string, 0, len(m.Labels))
			for _, l := range m.Labels {
				labels = append(labels, l.Name)
			}
			fmt.Fprintf(&b, "  %s %s %q unit %q limit %d scale %d/%d when %q labels %s\n", m.Type, m.Name, m.Help, m.Unit, m.Limit,
				m.Scale.Num, m.Scale.Den, m.When, strings.Join(labels, ","))
			fmt.Fprintf(&b, "    cells %+v\n", m.Cells)
			if m.Buckets != nil {
				fmt.Fprintf(&b, "    buckets schema %d %d..%d bounds %v\n", m.Buckets.Schema, m.Buckets.Low, m.Buckets.High, m.Buckets.Bounds)
			}
			if m.States != nil {
				fmt.Fprintf(&b, "    states %v\n", m.States)
			}
			if m.Exemplar != nil {
				fmt.Fprintf(&b, "    exemplar %+v\n", *m.Exemplar)
			}
		}
	}
	golden(t, "everything.txt", []byte(b.String()))
}

// Every mistake is reported, not only the first.
func TestParseProblems(t *testing.T) {
	_, err := Load("testdata/wrong.bpf.o")
	if err == nil {
		t.Fatal("no error")
	}
	var b strings.Builder
	for _, problem := range program.Problems(err) {
		b.WriteString(problem.Error() + "\n")
	}
	golden(t, "wrong.txt", []byte(b.String()))
}

func TestParseRefuses(t *testing.T) {
	f := func(name string, data []byte, want string) {
		t.Helper()
		_, err := Parse(data, name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	f("empty", nil, "not a usable eBPF object")
	f("text", []byte("hello"), "not a usable eBPF object")
	data, err := os.ReadFile("testdata/everything.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	f("half", data[:len(data)/2], "not a usable eBPF object")
	big := bytes.Clone(data)
	big[5] = 2 // the other byte order
	f("big", big, "not a usable")
	licensed := func(text string) []byte {
		return bytes.Replace(data, []byte("Dual BSD/GPL\x00"), []byte(text+"\x00"), 1)
	}
	f("unlicensed", licensed("\x00ual BSD/GPL"), "the object has no license")
	spec, err := Parse(licensed("Dual\x00BSD/GPL"), "two licenses")
	if err != nil {
		t.Fatal(err)
	}
	for name, function := range spec.Collection.Programs {
		if function.License != "Dual" {
			t.Errorf("%s has the license %q", name, function.License)
		}
	}
	if _, err := Load("testdata"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Load("testdata/absent.o"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// Bitfields: the unit and the bits that the compiler chose.
func TestFlattenBitfield(t *testing.T) {
	u32 := &btf.Int{Name: "u32", Size: 4}
	members, err := Flatten(&btf.Struct{Size: 8, Members: []btf.Member{
		{Name: "low", Type: u32, Offset: 0, BitfieldSize: 3},
		{Name: "across", Type: u32, Offset: 6, BitfieldSize: 4},
		{Name: "", Type: u32, Offset: 10, BitfieldSize: 2},
		{Name: "high", Type: u32, Offset: 60, BitfieldSize: 4},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []program.Field{
		{Offset: 0, Size: 1, BitOffset: 0, BitSize: 3},
		{Offset: 0, Size: 2, BitOffset: 6, BitSize: 4},
		{Offset: 7, Size: 1, BitOffset: 4, BitSize: 4},
	}
	if len(members) != len(want) {
		t.Fatalf("got %d members, want %d", len(members), len(want))
	}
	for i, m := range members {
		if m.Field != want[i] {
			t.Errorf("%s: got %+v, want %+v", m.Name, m.Field, want[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/everything.bpf.o", "testdata/wrong.bpf.o"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := Parse(data, "fuzz.o")
		if (spec == nil) == (err == nil) {
			t.Fatalf("spec %v and error %v", spec, err)
		}
		if spec != nil {
			spec.Clone()
		}
	})
}

// Types that no label or number can be made of are problems, also where nobody catches a panic.
func TestFlattenOddTypes(t *testing.T) {
	f := func(typ btf.Type, want error) {
		t.Helper()
		if _, err := Flatten(typ); !errors.Is(err, want) {
			t.Errorf("%v: got %v", typ, err)
		}
	}
	f(&btf.Int{Name: "__int128", Size: 16, Encoding: btf.Signed}, ErrType)
	f(&btf.Int{Name: "unsigned __int128", Size: 16}, ErrType)
	f(&btf.Pointer{Target: &btf.Void{}}, ErrPointer)
	f(&btf.Struct{Members: []btf.Member{{Name: "u", Type: &btf.Union{Size: 4}}}}, ErrUnion)
	f(&btf.Float{Size: 8}, ErrType)
	deep := btf.Type(&btf.Int{Size: 4})
	for range 100 {
		deep = &btf.Struct{Size: 4, Members: []btf.Member{{Name: "x", Type: deep}}}
	}
	f(deep, ErrTooDeep)
}
