package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// errClosedArchive is returned for writes after Close.
var errClosedArchive = errors.New("archive is closed")

const (
	modeDirectory = 0o040000
	modeFile      = 0o100000
	modeCharacter = 0o020000
)

// cpioWriter writes a cpio archive in the "newc" format, the one that the
// kernel unpacks as an initramfs (Documentation/driver-api/early-userspace/
// buffer-format.rst). All entries belong to root and have the time 0, so equal
// input gives an equal archive.
type cpioWriter struct {
	out    io.Writer
	inode  uint32
	dirs   map[string]bool
	closed bool
}

func newCPIOWriter(out io.Writer) *cpioWriter {
	return &cpioWriter{out: out, dirs: map[string]bool{"": true, ".": true}}
}

// File adds a regular file, and the directories above it that are not yet in
// the archive. perm has the permission bits.
func (w *cpioWriter) File(name string, perm uint32, content []byte) error {
	name = cleanName(name)
	if err := w.Directory(path.Dir(name)); err != nil {
		return err
	}
	return w.entry(name, modeFile|perm&0o7777, 0, 0, content)
}

// Directory adds a directory and those above it, each once.
func (w *cpioWriter) Directory(name string) error {
	name = cleanName(name)
	if w.dirs[name] {
		return nil
	}
	if err := w.Directory(path.Dir(name)); err != nil {
		return err
	}
	w.dirs[name] = true
	return w.entry(name, modeDirectory|0o755, 0, 0, nil)
}

// CharacterDevice adds a device node.
func (w *cpioWriter) CharacterDevice(name string, perm, major, minor uint32) error {
	name = cleanName(name)
	if err := w.Directory(path.Dir(name)); err != nil {
		return err
	}
	return w.entry(name, modeCharacter|perm&0o7777, major, minor, nil)
}

// Close writes the trailer. It does not close the underlying writer.
func (w *cpioWriter) Close() error {
	if w.closed {
		return nil
	}
	w.inode = 0
	err := w.entry("TRAILER!!!", 0, 0, 0, nil)
	w.closed = true
	return err
}

func cleanName(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (w *cpioWriter) entry(name string, mode, major, minor uint32, content []byte) error {
	if w.closed {
		return fmt.Errorf("add %s: %w", name, errClosedArchive)
	}
	if uint64(len(content)) > 1<<32-1 {
		return fmt.Errorf("add %s: %d bytes are more than an initramfs entry can have", name, len(content))
	}
	links := uint32(1)
	if mode&modeDirectory != 0 && mode&modeFile == 0 {
		links = 2
	}
	header := "070701"
	for _, field := range []uint32{
		w.inode, mode, 0, 0, links, 0, uint32(len(content)),
		0, 0, major, minor, uint32(len(name) + 1), 0,
	} {
		header += fmt.Sprintf("%08X", field)
	}
	w.inode++
	header += name + "\x00"
	for _, part := range [][]byte{
		[]byte(header), make([]byte, padding(len(header))),
		content, make([]byte, padding(len(content))),
	} {
		if _, err := w.out.Write(part); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
	}
	return nil
}

// padding is how many bytes bring n to a multiple of 4.
func padding(n int) int { return -n & 3 }
