package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type cpioEntry struct {
	name         string
	mode         uint32
	major, minor uint32
	content      string
}

// readCPIO is written from the format's description, not from the writer.
func readCPIO(data []byte) ([]cpioEntry, error) {
	var entries []cpioEntry
	offset := 0
	take := func(n int) ([]byte, error) {
		if n > len(data)-offset {
			return nil, fmt.Errorf("truncated at %d: want %d bytes", offset, n)
		}
		part := data[offset : offset+n]
		offset += n
		return part, nil
	}
	align := func() error {
		for offset%4 != 0 {
			b, err := take(1)
			if err != nil {
				return err
			}
			if b[0] != 0 {
				return fmt.Errorf("padding at %d is not zero", offset-1)
			}
		}
		return nil
	}
	for {
		header, err := take(110)
		if err != nil {
			return nil, err
		}
		if string(header[:6]) != "070701" {
			return nil, fmt.Errorf("bad magic %q at %d", header[:6], offset-110)
		}
		var fields [13]uint32
		for i := range fields {
			v, err := strconv.ParseUint(string(header[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return nil, err
			}
			fields[i] = uint32(v)
		}
		name, err := take(int(fields[11]))
		if err != nil {
			return nil, err
		}
		if len(name) == 0 || name[len(name)-1] != 0 {
			return nil, fmt.Errorf("name %q has no end", name)
		}
		if err := align(); err != nil {
			return nil, err
		}
		content, err := take(int(fields[6]))
		if err != nil {
			return nil, err
		}
		if err := align(); err != nil {
			return nil, err
		}
		entry := cpioEntry{string(name[:len(name)-1]), fields[1], fields[9], fields[10], string(content)}
		if entry.name == "TRAILER!!!" {
			return entries, nil
		}
		entries = append(entries, entry)
	}
}

func sampleArchive(t *testing.T) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := newCPIOWriter(&buffer)
	for _, err := range []error{
		w.CharacterDevice("/dev/console", 0o600, 5, 1),
		w.File("init", 0o755, []byte("\x7fELF")),
		w.File("./internal/engine/testdata/a", 0o644, []byte("12345")),
		w.File("internal/engine/b.o", 0o644, nil),
		w.Directory("tmp"),
		w.Directory("internal"),
		w.Close(),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.File("late", 0o644, nil); !errors.Is(err, errClosedArchive) {
		t.Errorf("a file after Close gave %v", err)
	}
	return buffer.Bytes()
}

func TestCPIORoundTrip(t *testing.T) {
	got, err := readCPIO(sampleArchive(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []cpioEntry{
		{name: "dev", mode: 0o40755},
		{name: "dev/console", mode: 0o20600, major: 5, minor: 1},
		{name: "init", mode: 0o100755, content: "\x7fELF"},
		{name: "internal", mode: 0o40755},
		{name: "internal/engine", mode: 0o40755},
		{name: "internal/engine/testdata", mode: 0o40755},
		{name: "internal/engine/testdata/a", mode: 0o100644, content: "12345"},
		{name: "internal/engine/b.o", mode: 0o100644},
		{name: "tmp", mode: 0o40755},
	}
	if !slices.Equal(got, want) {
		t.Errorf("read back\n%+v\nwant\n%+v", got, want)
	}
}

func TestCPIOIsReadByCPIO(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("needs the cpio command")
	}
	cmd := exec.Command(tool, "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(sampleArchive(t))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	const want = "dev dev/console init internal internal/engine internal/engine/testdata internal/engine/testdata/a internal/engine/b.o tmp"
	if got := strings.Join(strings.Fields(string(out)), " "); got != want {
		t.Errorf("cpio lists\n%s\nwant\n%s", got, want)
	}
}

func FuzzCPIORoundTrip(f *testing.F) {
	f.Add("a/b", []byte("content"))
	f.Add("../x", []byte{})
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		clean := cleanName(name)
		if clean == "" || strings.ContainsRune(name, 0) || clean == "TRAILER!!!" {
			t.Skip("needs a name that an archive can hold")
		}
		var buffer bytes.Buffer
		w := newCPIOWriter(&buffer)
		if err := w.File(name, 0o600, content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		entries, err := readCPIO(buffer.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		last := entries[len(entries)-1]
		if last.name != clean || last.content != string(content) {
			t.Errorf("wrote %q (%d bytes), read %q (%d bytes)", clean, len(content), last.name, len(last.content))
		}
	})
}
