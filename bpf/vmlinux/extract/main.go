// Command extract writes the BTF that a kernel image carries to standard
// output. It reads x86 bzImages whose payload is compressed by zstd and uncompressed images.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

var errNoBTF = errors.New("no BTF found: the image is compressed by something else than zstd, or built without CONFIG_DEBUG_INFO_BTF")

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: extract VMLINUZ > BTF")
		os.Exit(2)
	}
	image, err := os.ReadFile(os.Args[1])
	if err == nil {
		var data []byte
		if data, err = extract(image); err == nil {
			_, err = os.Stdout.Write(data)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
		os.Exit(1)
	}
}

func extract(image []byte) ([]byte, error) {
	if data := find(image); data != nil {
		return data, nil
	}
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for from := 0; ; {
		i := bytes.Index(image[from:], magic)
		if i < 0 {
			return nil, errNoBTF
		}
		from += i + 1
		decoder, err := zstd.NewReader(bytes.NewReader(image[from-1:]))
		if err != nil {
			continue
		}
		// What follows the frame is no zstd: keep what was read before the error.
		kernel, _ := io.ReadAll(decoder)
		decoder.Close()
		if data := find(kernel); data != nil {
			return data, nil
		}
	}
}

// find returns the largest piece of b that has a plausible BTF header: its type section is followed by its strings.
func find(b []byte) []byte {
	var best []byte
	magic := []byte{0x9f, 0xeb, 1, 0, 24, 0, 0, 0}
	for from := 0; ; {
		i := bytes.Index(b[from:], magic)
		if i < 0 {
			return best
		}
		at := b[from+i:]
		from += i + 1
		if len(at) < 24 {
			continue
		}
		u32 := func(offset int) uint64 { return uint64(binary.LittleEndian.Uint32(at[offset:])) }
		typeOff, typeLen, strOff, strLen := u32(8), u32(12), u32(16), u32(20)
		end := 24 + strOff + strLen
		if typeOff != 0 || typeLen != strOff || end > uint64(len(at)) || strLen < 2 || at[end-1] != 0 {
			continue
		}
		if end > uint64(len(best)) {
			best = at[:end]
		}
	}
}
