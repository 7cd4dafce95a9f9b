package profile

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseMaps(t *testing.T) {
	const text = `00400000-0047b000 r--p 00000000 fd:01 1234                               /usr/bin/a
0047b000-0057b000 r-xp 0007b000 fd:01 1234                               /usr/bin/a
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000001000-7f0000002000 r-xp 00001000 00:2a 99                         /srv/with space (deleted) (deleted)
7f0000002000-7f0000003000 r-xp 00001000 00:2a 99                         /srv/line\012break
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
7ffd00001000-7ffd00003000 r-xp 00000000 00:00 0                          overlaps
garbage
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	got, err := parseMaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{
		{start: 0x47b000, end: 0x57b000, offset: 0x7b000, device: "fd:01", inode: 1234, path: "/usr/bin/a"},
		{start: 0x7f0000000000, end: 0x7f0000001000, device: "00:00"},
		{start: 0x7f0000001000, end: 0x7f0000002000, offset: 0x1000, device: "00:2a", inode: 99, path: "/srv/with space (deleted)", deleted: true},
		{start: 0x7f0000002000, end: 0x7f0000003000, offset: 0x1000, device: "00:2a", inode: 99, path: "/srv/line\nbreak"},
		{start: 0x7ffd00000000, end: 0x7ffd00002000, device: "00:00", path: "[vdso]"},
		{start: 0xffffffffff600000, end: 0xffffffffff601000, device: "00:00", path: "[vsyscall]"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestFindAndMerge(t *testing.T) {
	f := func(start, end uint64, path string) mapping { return mapping{start: start, end: end, path: path} }
	all := []mapping{f(10, 20, "a"), f(20, 30, "b"), f(40, 50, "c")}
	for address, want := range map[uint64]string{9: "", 10: "a", 19: "a", 20: "b", 30: "", 39: "", 49: "c", 50: ""} {
		got := ""
		if m := find(all, address); m != nil {
			got = m.path
		}
		if got != want {
			t.Errorf("%d is in %q, want %q", address, got, want)
		}
	}
	got := merge(all, []mapping{f(5, 8, "d"), f(25, 45, "e")})
	want := []mapping{f(5, 8, "d"), f(10, 20, "a"), f(25, 45, "e")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := merge(nil, all); !reflect.DeepEqual(got, all) {
		t.Errorf("got %+v", got)
	}
	if got := merge(all, nil); !reflect.DeepEqual(got, all) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseMaps(f *testing.F) {
	own, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("0-1 r-xp 0 00:00 0 a\n")
	f.Add("ffffffffffff0000-ffffffffffffffff r-xp ffffffffffffffff 00:00 18446744073709551615 a\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMaps(strings.NewReader(text))
		if err != nil {
			return
		}
		for i, m := range all {
			if m.start >= m.end || i > 0 && m.start < all[i-1].end || find(all, m.start) != &all[i] || find(all, m.end-1) != &all[i] {
				t.Fatalf("%+v of %+v", m, all)
			}
		}
		half := merge(all[len(all)/2:], all[:len(all)/2])
		if !slices.IsSortedFunc(half, func(a, b mapping) int { return int(int64(a.start>>1) - int64(b.start>>1)) }) {
			t.Fatalf("%+v", half)
		}
	})
}

func TestPerfMap(t *testing.T) {
	const text = "1000 100 old name\nnonsense\n0x1000 0x80 LazyCompile:~new /srv/a.js:1:2\n2000 10 \n3000 ffffffffffffffff overflows\n4000 4 last"
	names, err := readPerfMap(context.Background(), strings.NewReader(text), []uint64{0xfff, 0x1000, 0x107f, 0x1080, 0x1100, 0x2000, 0x3000, 0x4003, 0x4004})
	want := []string{"", "LazyCompile:~new /srv/a.js:1:2", "LazyCompile:~new /srv/a.js:1:2", "old name", "", "", "", "last", ""}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v", names, err)
	}
}

func TestPerfMapLongLine(t *testing.T) {
	names, err := readPerfMap(context.Background(), strings.NewReader("1000 100 "+strings.Repeat("a", 1<<18)+"\n2000 1 b\n"), []uint64{0x1000, 0x2000})
	if err != nil || names[0] != "" || names[1] != "b" {
		t.Errorf("%d, %q, %v", len(names[0]), names[1], err)
	}
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 100 name\n0x1000 0x80 other\n"), uint64(0x1000))
	f.Fuzz(func(t *testing.T, text []byte, address uint64) {
		names, err := readPerfMap(context.Background(), bytes.NewReader(text), []uint64{address})
		if err != nil || len(names) != 1 || len(names[0]) > maxName {
			t.Fatal(names, err)
		}
		if names[0] != "" && !bytes.Contains(text, []byte(names[0])) {
			t.Fatalf("%q", names[0])
		}
	})
}
