package series

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

func testEnvironment() environment {
	resolver := newFakeResolver()
	resolver.set(1, "a\"b\n\xff", workload.Alive)
	h := NewHost()
	h.devices.read = func() (map[uint64]string, error) {
		return map[uint64]string{8 << 20: "sda", 259<<20 | 3: "nvme0n1p2"}, nil
	}
	h.interfaces.read = func() (map[uint64]string, error) { return map[uint64]string{1: "lo", 2: "eth0"}, nil }
	h.symbols.open = func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("ffffffff81000000 T _text\nffffffff81000100 t do_it\nffffffff81000180 d data\n" +
			"ffffffff81000200 D __start\nffffffff81000200 T vfs_read\nffffffff81000200 T alias\nffffffff81000300 A absolute\nffffffffc0000000 t hook\t[module]\nffffffffd0000000 t last\n")), nil
	}
	h.allSymbols.open = h.symbols.open
	h.enums.read = func(name string) ([]program.State, error) {
		if name != "skb_drop_reason" {
			return nil, fmt.Errorf("enum %s: %w", name, btf.ErrNotFound)
		}
		return []program.State{{Name: "no_socket", Value: 3}}, nil
	}
	return environment{workloads: newWorkloads(resolver, nil), host: h}
}

func TestDecoders(t *testing.T) {
	env := testEnvironment()
	table := decoders()
	f := func(name string, field program.Field, data []byte, want string) {
		t.Helper()
		l := program.Label{Name: "x", Field: field, Enum: []program.State{{Name: "read", Value: 0}, {Name: "write", Value: -1}}}
		got, _ := table[name](env).appendLabel(nil, &l, data)
		if string(got) != want {
			t.Errorf("%s of %x: got %s, want %s", name, data, got, want)
		}
	}
	size := func(n uint32) program.Field { return program.Field{Size: n} }
	signed := func(n uint32) program.Field { return program.Field{Size: n, Signed: true} }
	le := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	big := func(n uint32) program.Field { return program.Field{Size: n, BigEndian: true} }

	f("uint", size(8), le(1<<64-1), `x="18446744073709551615"`)
	f("uint", size(3), []byte{1, 2, 3}, `x="197121"`)
	f("uint", program.Field{Offset: 2, Size: 2}, []byte{9, 9, 1, 2}, `x="513"`)
	f("uint", program.Field{Offset: 2, Size: 4}, []byte{9, 9, 1, 2}, ``)
	f("uint", size(16), make([]byte, 16), `x="00000000000000000000000000000000"`)
	f("uint", program.Field{Size: 4, BitOffset: 4, BitSize: 3}, le(0x7f), `x="7"`)
	f("int", program.Field{Size: 4, BitOffset: 4, BitSize: 3, Signed: true}, le(0x7f), `x="-1"`)
	f("int", signed(4), le(0xffffffff), `x="-1"`)
	f("int", signed(1), []byte{0x80}, `x="-128"`)
	f("port", big(2), []byte{0x1f, 0x90}, `x="8080"`)
	f("port", size(2), []byte{0x90, 0x1f}, `x="8080"`)
	f("bool", size(1), []byte{2}, `x="true"`)
	f("bool", size(1), []byte{0}, `x="false"`)
	f("hex", size(8), le(0), `x="0x0"`)
	f("hex", size(8), le(0xdeadbeef), `x="0xdeadbeef"`)
	f("hex", size(8), le(1<<63), `x="0x8000000000000000"`)
	f("hex", program.Field{Size: 1, Count: 3}, []byte{0, 1, 0xff}, `x="0001ff"`)
	f("enum", size(4), le(0), `x="read"`)
	f("enum", signed(4), le(0xffffffff), `x="write"`)
	f("enum", size(4), le(7), `x="7"`)
	f("string", size(8), []byte("abc\x00def\x00"), `x="abc"`)
	f("string", size(4), []byte("\xff\"\\\n"), "x=\"\uFFFD\\\"\\\\\\n\"")
	f("string", size(4), make([]byte, 4), ``)
	f("comm", size(16), []byte("0123456789abcdef"), `x="0123456789abcdef"`)
	f("ipv4", size(4), []byte{10, 0, 0, 1}, `x="10.0.0.1"`)
	f("ipv6", size(16), net.ParseIP("2001:db8::1"), `x="2001:db8::1"`)
	f("ipv6", size(16), net.ParseIP("10.1.2.3").To16(), `x="::ffff:10.1.2.3"`)
	f("ip", size(16), net.ParseIP("10.1.2.3").To16(), `x="10.1.2.3"`)
	f("ip", size(16), net.ParseIP("::1"), `x="::1"`)
	f("ip", program.Field{Size: 1, Count: 16}, net.ParseIP("::1"), `x="::1"`)
	f("mac", size(6), []byte{0, 0x1a, 2, 3, 4, 0xff}, `x="00:1a:02:03:04:ff"`)
	f("protocol", size(1), []byte{6}, `x="tcp"`)
	f("protocol", size(1), []byte{200}, `x="200"`)
	f("ethertype", size(2), []byte{0xdd, 0x86}, `x="ipv6"`)
	f("ethertype", size(2), []byte{0x34, 0x12}, `x="0x1234"`)
	f("errno", signed(4), le(uint64(0xffffffff-1)), `x="ENOENT"`)
	f("errno", size(4), le(2), `x="ENOENT"`)
	f("errno", signed(8), le(^uint64(10)), `x="EAGAIN"`)
	f("errno", size(4), le(0), `x="0"`)
	f("errno", signed(4), le(0x80000000), `x="-2147483648"`)
	f("errno", size(4), le(512), `x="ERESTARTSYS"`)
	f("errno", size(4), le(4000), `x="4000"`)
	f("signal", size(4), le(9), `x="SIGKILL"`)
	f("signal", size(4), le(40), `x="40"`)
	f("signal", size(8), le(1<<63), `x="9223372036854775808"`)
	f("device", size(4), le(8<<20), `x="sda"`)
	f("device", size(4), le(259<<20|3), `x="nvme0n1p2"`)
	f("device", size(4), le(7<<20|5), `x="7:5"`)
	f("device", size(4), le(42), `x="0:42"`)
	f("ifindex", size(4), le(2), `x="eth0"`)
	f("ifindex", size(4), le(0), `x="0"`)
	f("ksym", size(8), le(0xffffffff81000150), `x="do_it"`)
	f("ksym", size(8), le(0xffffffff81000200), `x="vfs_read"`)
	f("ksym", size(8), le(0xffffffffc0000010), `x="hook"`)
	f("ksym", size(8), le(0xffffffffd0000010), `x="0xffffffffd0000010"`)
	f("ksym", size(8), le(5), `x="0x5"`)
	f("ksym", size(8), le(0), `x="0x0"`)
	f("workload", size(8), le(1), "container=\"a\\\"b\\n\uFFFD\"")
	f("workload", size(8), le(2), `cgroup="unresolved:2"`)
	read := map[string]uint64{"amd64": 0, "arm64": 63}
	f("syscall", size(8), le(read[runtime.GOARCH]), `x="read"`)
	f("syscall", size(8), le(100000), `x="100000"`)
}

func TestHostOfThisMachine(t *testing.T) {
	h := NewHost()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip("needs a loopback interface: ", err)
	}
	l := program.Label{Name: "x", Field: program.Field{Size: 4}}
	got, known := h.interfaces.appendLabel(nil, &l, key32(uint32(lo.Index)))
	if string(got) != `x="lo"` || !known {
		t.Errorf("interface: %s %v", got, known)
	}
	got, known = h.interfaces.appendLabel(nil, &l, key32(1<<30))
	if string(got) != `x="1073741824"` || known {
		t.Errorf("no interface: %s %v", got, known)
	}
	if _, err := readDevices(); err != nil {
		t.Error(err)
	}
}

// A renamed interface is noticed, and its series gets the new name without counting twice.
func TestNamesThatChange(t *testing.T) {
	names := map[uint64]string{1: "lo"}
	host := NewHost()
	host.interfaces.read = func() (map[uint64]string, error) {
		m := map[uint64]string{}
		for k, v := range names {
			m[k] = v
		}
		return m, nil
	}
	f := newFixture(t, hashSpec(4, 8, 10), program.Metric{}, label("interface", "ifindex", 0, 4))
	var err error
	if f.collector, err = NewCollector(f.spec, f.source, Options{Host: host, Started: started, Clock: func() time.Time { return f.now }}); err != nil {
		t.Fatal(err)
	}
	f.put(uint32(1), uint64(10))
	f.put(uint32(2), uint64(20))
	values(t, f.collect(), map[string]uint64{`interface="lo"`: 10, `interface="2"`: 20})
	names[1], names[2] = "loop", "eth0"
	host.interfaces.at = time.Now().Add(-2 * namesAge)
	got := f.collect()
	values(t, got, map[string]uint64{`interface="loop"`: 10, `interface="eth0"`: 20})
	if got[`interface="eth0"`].start != started.UnixMilli() {
		t.Error("a name changed the start of a series")
	}
	if s := f.collector.Stats()[0]; s.Unresolved != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestSymbolsThatMayNotBeSeen(t *testing.T) {
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("0000000000000000 T _text\n0000000000000000 T x\n")), nil
		},
		func() (io.ReadCloser, error) { return nil, errors.New("not permitted") },
	} {
		s := &symbolTable{open: open}
		l := program.Label{Name: "x", Field: program.Field{Size: 8}}
		if got, _ := s.appendLabel(nil, &l, key32(0x100, 0xffffffff)); string(got) != `x="0xffffffff00000100"` {
			t.Errorf("got %s", got)
		}
	}
}

// validLabels fails unless text is a well-formed label set of valid UTF-8.
func validLabels(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) || strings.ContainsRune(text, '\n') {
		t.Fatalf("%q is not one line of UTF-8", text)
	}
	n, rest := 0, text
	EachLabel(text, func(name, value string) bool {
		n += len(AppendLabel(nil, name, value)) + 1
		if name == "" || strings.ContainsAny(name, `",`) {
			t.Fatalf("%q has a label named %q", text, name)
		}
		return true
	})
	if n > 0 && n-1 != len(rest) {
		t.Fatalf("%q does not parse to its end", text)
	}
	if n == 0 && text != "" {
		t.Fatalf("%q does not parse", text)
	}
}

// What the kernel lists of its data is known to those who ask for data, and costs nobody else anything.
func TestSymbolsOfData(t *testing.T) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, functions := map[uint64][]string{}, map[uint64]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		address, err := strconv.ParseUint(columns[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains("tTwW", columns[1]) {
			functions[address] = true
		} else if strings.Contains("dDbBrR", columns[1]) && len(columns) == 3 {
			names[address] = append(names[address], columns[2])
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	address := uint64(0)
	for a := range names {
		if !functions[a] {
			address = max(address, a)
		}
	}
	if address == 0 {
		t.Skip("needs symbols of data in /proc/kallsyms, and to see addresses")
	}
	h := NewHost()
	if name, known := h.allSymbols.look(address, true); !known || !slices.Contains(names[address], name) {
		t.Errorf("at %#x is %q, want one of %v", address, name, names[address])
	}
	if len(h.symbols.addresses) > 0 {
		t.Error("functions were read though nobody asked for them")
	}
	if name, known := h.symbols.look(address, true); known {
		t.Errorf("among functions is %q", name)
	}
}

func FuzzDecoders(f *testing.F) {
	for i := range Decoders() {
		f.Add(i, []byte("a\xff\"\\\n,}=\x00bcdefghijklmnopq"), uint32(0), uint32(8), uint32(0), uint32(0), uint32(0), uint8(0))
		f.Add(i, []byte{1, 2, 3, 4, 5, 6, 7, 8}, uint32(1), uint32(4), uint32(2), uint32(5), uint32(7), uint8(3))
	}
	env := testEnvironment()
	table := decoders()
	names := Decoders()
	f.Fuzz(func(t *testing.T, which int, data []byte, offset, size, count, bitOffset, bitSize uint32, flags uint8) {
		if which < 0 {
			which = -(which + 1)
		}
		l := program.Label{Name: "x", Decoder: names[which%len(names)], Field: program.Field{Offset: offset, Size: size, Count: count,
			BitOffset: bitOffset, BitSize: bitSize, Signed: flags&1 != 0, BigEndian: flags&2 != 0}}
		text, _ := table[l.Decoder](env).appendLabel(nil, &l, data)
		validLabels(t, string(text))
		again, _ := table[l.Decoder](env).appendLabel(nil, &l, data)
		if string(again) != string(text) {
			t.Fatalf("%s: %s, then %s", l.Decoder, text, again)
		}
		text, _ = table[l.Decoder](env).appendLabel([]byte(`a="b"`), &l, data)
		validLabels(t, string(text))
		l.Field.Number(data)
	})
}

func FuzzLabels(f *testing.F) {
	f.Add("a", "b\"\\\n\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		text := AppendLabel(AppendLabel(nil, "x", a), "y", b)
		validLabels(t, string(text))
	})
}

func FuzzSymbols(f *testing.F) {
	f.Add("ffffffff81000000 T _text\nffffffff81000100 t do_it\t[x]\n", uint64(0xffffffff81000050))
	f.Fuzz(func(t *testing.T, text string, address uint64) {
		s := &symbolTable{open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
		s.reload(time.Now())
		_ = s.find(address, false)
		s = &symbolTable{open: s.open, data: true}
		s.reload(time.Now())
		_ = s.find(address, false)
	})
}

func FuzzFile(f *testing.F) {
	f.Add("cpu one 5 x 7\ncpu two -1 x 8\n", "cpu", 1, 2)
	f.Fuzz(func(t *testing.T, text, prefix string, key, value int) {
		r := program.Reader{Name: "f", Kind: program.FileReader, KeySize: 8, ValueSize: 8, Key: []program.Label{label("name", "string", 0, 8)},
			File: &program.File{Path: "x", Prefix: prefix, Keys: []program.FileKey{{Column: key}}, Values: []int{value}}}
		file, _, err := newFileReader(nil, &r, nil, nil, &Options{})
		if err != nil {
			return
		}
		for line := range strings.Lines(text) {
			file.(*fileReader).parse([]byte(line), make([]byte, 8), make([]byte, 8))
		}
	})
}

// A thing that is gone keeps the name by which it was shown, unless another has its number. What is kept is bounded.
func TestNamesOfWhatIsGone(t *testing.T) {
	list := map[uint64]string{1: "lo", 2: "eth0"}
	names := &nameTable{standIn: appendNumber, read: func() (map[uint64]string, error) { return maps.Clone(list), nil }}
	l := label("interface", "ifindex", 0, 4)
	reload := func() {
		names.mu.Lock()
		defer names.mu.Unlock()
		names.at = time.Time{}
		names.reload(time.Now(), 0)
	}
	name := func(n uint32, want string) {
		t.Helper()
		if got, _ := names.appendLabel(nil, &l, key32(n)); string(got) != `interface="`+want+`"` {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	name(2, "eth0")
	delete(list, 2)
	reload()
	before := names.generation(time.Now())
	name(2, "eth0")
	list[2] = "wlan0"
	reload()
	name(2, "wlan0")
	if names.generation(time.Now()) == before {
		t.Error("a new name does not show")
	}
	for n := range uint64(10 * maxGoneNames) {
		clear(list)
		list[n] = "veth"
		reload()
	}
	if n := len(names.names); n > 2*maxGoneNames {
		t.Errorf("%d names are kept", n)
	}
}

// The list of symbols is forgotten when nobody asks, and read again when somebody does: a new generation only if it changed.
func TestSymbolsAreForgotten(t *testing.T) {
	text, reads := "ffffffff81000000 T one\nffffffff81000100 T two\n", 0
	s := &symbolTable{open: func() (io.ReadCloser, error) {
		reads++
		return io.NopCloser(strings.NewReader(text)), nil
	}}
	look := func(want string) {
		t.Helper()
		if name, _ := s.look(0xffffffff81000010, false); name != want {
			t.Errorf("got %q, want %q", name, want)
		}
	}
	later := func() {
		s.at, s.asked = s.at.Add(-2*namesAge), s.asked.Add(-2*namesAge)
	}
	look("one")
	first := s.generation(time.Now())
	if look("one"); reads != 1 || s.names == nil {
		t.Errorf("read %d times, names %q", reads, s.names)
	}
	later()
	if g := s.generation(time.Now()); g != first || s.names != nil || s.addresses != nil || s.offsets != nil {
		t.Errorf("generation %d after %d, names %q", g, first, s.names)
	}
	look("one")
	if g := s.generation(time.Now()); g != first || reads != 2 {
		t.Errorf("generation %d after %d, read %d times", g, first, reads)
	}
	later()
	s.generation(time.Now())
	text = strings.Replace(text, "one", "other", 1)
	look("other")
	if g := s.generation(time.Now()); g == first {
		t.Error("names are others, the generation is not")
	}
}
