// Package bpf holds what is needed to build a Program from C: kaon.h, libbpf's
// helper headers and the kernel's types, and a compiler driver that uses them.
package bpf

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:generate go run ./generate

//go:embed kaon.h kaon_workload.h kaon_socket.h kaon_syscall.h kaon_usdt.h kaon_tables.h include vmlinux/*/vmlinux.h.gz
var headers embed.FS

// ErrArch is returned for an architecture without kernel types.
var ErrArch = errors.New("no kernel types for this architecture")

// Architectures that programs can be compiled for, in Go's words.
var architectures = []string{"amd64", "arm64"}

// WriteHeaders lays out in dir, which is made if it does not exist, the headers that a
// Program's source includes: clang -I dir finds kaon.h, vmlinux.h (of arch,
// a GOARCH) and <bpf/...>.
func WriteHeaders(dir, arch string) error {
	if !slices.Contains(architectures, arch) {
		return fmt.Errorf("%w: %q, known are %s", ErrArch, arch, strings.Join(architectures, ", "))
	}
	err := fs.WalkDir(headers, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".h") {
			return err
		}
		data, err := headers.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(dir, strings.TrimPrefix(path, "include/")), data)
	})
	if err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	compressed, err := headers.ReadFile("vmlinux/" + arch + "/vmlinux.h.gz")
	if err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	data, err := io.ReadAll(reader)
	if err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "vmlinux.h"), data); err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	return nil
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
