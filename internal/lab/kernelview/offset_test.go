package kernelview

import (
	"bytes"
	"io"
	"os"
	"testing"
	"unsafe"

	"github.com/kaon-project/kaon/internal/lab"
)

// TestFileOffset: the bytes in the file are the code in memory.
func TestFileOffset(t *testing.T) {
	entry := lab.KickEntry()
	offset, err := fileOffset(entry)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(executable)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := make([]byte, 64)
	if _, err := io.ReadFull(io.NewSectionReader(file, int64(offset), int64(len(want))), want); err != nil {
		t.Fatal(err)
	}
	// The function's code, behind a pointer to a pointer to it.
	code := *(**[64]byte)(unsafe.Pointer(&entry))
	if got := code[:]; !bytes.Equal(got, want) {
		t.Errorf("in memory % x, in the file % x", got, want)
	}
	if _, err := fileOffset(uintptr(unsafe.Pointer(&want[0]))); err == nil {
		t.Error("the heap is in the executable")
	}
}

func TestOffsetIn(t *testing.T) {
	const maps = `00400000-00401000 r--p 00000000 08:01 7 /usr/bin/my kaon
00401000-00501000 r-xp 00001000 08:01 7 /usr/bin/my kaon
00501000-00502000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 r-xp 00002000 08:01 9 /usr/lib/other
7f0000002000-7f0000003000 r-xp 00000000 00:00 0 [vdso]
`
	for address, want := range map[uint64]uint64{0x401000: 0x1000, 0x4ff123: 0xff123} {
		if got, err := offsetIn(maps, "/usr/bin/my kaon", address); err != nil || got != want {
			t.Errorf("%#x is at %#x (%v), want %#x", address, got, err, want)
		}
	}
	for _, address := range []uint64{0, 0x400123, 0x501000, 0x7f0000000010, 0x7f0000002010, 0x600000} {
		if got, err := offsetIn(maps, "/usr/bin/my kaon", address); err == nil {
			t.Errorf("%#x is at %#x", address, got)
		}
	}
}

func FuzzOffsetIn(f *testing.F) {
	f.Add("00401000-00501000 r-xp 00001000 08:01 7 /a\n", "/a", uint64(0x401000))
	f.Add("a-b- x 1 1 1\n", "", uint64(10))
	f.Fuzz(func(t *testing.T, maps, path string, address uint64) {
		_, _ = offsetIn(maps, path, address)
	})
}
