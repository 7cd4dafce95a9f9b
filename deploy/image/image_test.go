package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const created = 1750000000

// writeProgram writes the header of an executable file, with a segment of that type.
func writeProgram(t *testing.T, machine elf.Machine, segment elf.ProgType) string {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	for _, part := range []any{header, elf.Prog64{Type: uint32(segment)}} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "kaon")
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeImage builds an image and returns its layout's files and its archive.
func makeImage(t *testing.T, arguments ...string) (files map[string][]byte, archive []byte, output string) {
	t.Helper()
	directory := t.TempDir()
	layout, packed, license := filepath.Join(directory, "layout"), filepath.Join(directory, "kaon.tar"), filepath.Join(directory, "LICENSE")
	if err := os.WriteFile(license, []byte("as is"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := run(append([]string{
		"-name", "registry.example/kaon:v1.2.3", "-layout", layout, "-archive", packed, "-license", license, "-version", "v1.2.3", "-created", "1750000000",
	}, arguments...), &out)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	err = filepath.WalkDir(layout, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(layout, path)
		if err == nil {
			files[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if archive, err = os.ReadFile(packed); err != nil {
		t.Fatal(err)
	}
	return files, archive, out.String()
}

// What the layout's index points to is there, and is what the specification wants.
func TestImage(t *testing.T) {
	amd64, arm64 := writeProgram(t, elf.EM_X86_64, elf.PT_LOAD), writeProgram(t, elf.EM_AARCH64, elf.PT_LOAD)
	files, archive, output := makeImage(t, "arm64="+arm64, "amd64="+amd64)
	blob := func(d descriptor) []byte {
		content, ok := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if !ok || digest(content) != d.Digest || len(content) != d.Size {
			t.Fatalf("blob %+v: there are %d bytes with the digest %s", d, len(content), digest(content))
		}
		return content
	}
	parse := func(text []byte, into any) {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	if got := string(files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s", got)
	}
	var top, all index
	parse(files["index.json"], &top)
	if len(top.Manifests) != 1 || top.Manifests[0].MediaType != mediaIndex {
		t.Fatalf("index.json names %+v, want one image for all platforms", top.Manifests)
	}
	whole := top.Manifests[0]
	if want := map[string]string{"org.opencontainers.image.ref.name": "v1.2.3", "io.containerd.image.name": "registry.example/kaon:v1.2.3"}; !maps.Equal(whole.Annotations, want) {
		t.Errorf("the image is called %v, want %v", whole.Annotations, want)
	}
	if want := "registry.example/kaon:v1.2.3@" + whole.Digest + "\n"; output != want {
		t.Errorf("the command said %q, want %q", output, want)
	}
	parse(blob(whole), &all)
	reached := 3 // with index.json and oci-layout
	var architectures []string
	for _, d := range all.Manifests {
		architectures = append(architectures, d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant)
		var m manifest
		parse(blob(d), &m)
		var c config
		parse(blob(m.Config), &c)
		if m.MediaType != mediaManifest || d.MediaType != mediaManifest || len(m.Layers) != 1 || m.Layers[0].MediaType != mediaLayer || m.Config.MediaType != mediaConfig {
			t.Errorf("the manifest is %+v", m)
		}
		if c.platform != *d.Platform {
			t.Errorf("the configuration is for %+v, its descriptor says %+v", c.platform, *d.Platform)
		}
		if c.Config.User != "0:0" || !slices.Equal(c.Config.Entrypoint, []string{"/kaon"}) || !slices.Equal(c.Config.Env, []string{"PATH=/"}) {
			t.Errorf("a container would be %+v", c.Config)
		}
		for _, labels := range []map[string]string{m.Annotations, c.Config.Labels, all.Annotations} {
			if labels["org.opencontainers.image.version"] != "v1.2.3" || labels["org.opencontainers.image.created"] != "2025-06-15T15:06:40Z" {
				t.Errorf("labels are %v", labels)
			}
		}
		checkLayer(t, blob(m.Layers[0]), c.RootFS.DiffIDs, map[string][]byte{"amd64": read(t, amd64), "arm64": read(t, arm64)}[c.Architecture])
		reached += 3
	}
	if want := []string{"linux/amd64/", "linux/arm64/v8"}; !slices.Equal(architectures, want) {
		t.Errorf("the platforms are %v, want %v", architectures, want)
	}
	if reached != len(files) {
		t.Errorf("%d files of the layout are used, %d are there", reached, len(files))
	}
	inArchive := map[string][]byte{}
	for _, e := range entries(t, bytes.NewReader(archive)) {
		inArchive[e.Name] = e.content
	}
	if !maps.EqualFunc(inArchive, files, bytes.Equal) {
		t.Error("the archive is not the layout")
	}
}

func checkLayer(t *testing.T, packed []byte, diffIDs []string, program []byte) {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if len(diffIDs) != 1 || diffIDs[0] != digest(plain) {
		t.Errorf("diff_ids are %v, want %s", diffIDs, digest(plain))
	}
	want := []entry{
		{tar.Header{Name: "LICENSE", Mode: 0o644}, []byte("as is")},
		{tar.Header{Name: "kaon", Mode: 0o755}, program},
		{tar.Header{Name: "tmp/", Mode: 0o1777}, nil},
	}
	got := entries(t, bytes.NewReader(plain))
	if len(got) != len(want) {
		t.Fatalf("the layer has %d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		if e.Name != want[i].Name || e.Mode != want[i].Mode || !bytes.Equal(e.content, want[i].content) {
			t.Errorf("entry %d is %s with mode %o and %d bytes, want %s with mode %o", i, e.Name, e.Mode, len(e.content), want[i].Name, want[i].Mode)
		}
		if e.Uid != 0 || e.Gid != 0 || e.Uname != "" || !e.ModTime.Equal(time.Unix(created, 0)) {
			t.Errorf("%s is of user %d, group %d and of %v", e.Name, e.Uid, e.Gid, e.ModTime)
		}
	}
}

type entry struct {
	tar.Header
	content []byte
}

func entries(t *testing.T, r io.Reader) []entry {
	t.Helper()
	var all []entry
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{*header, content})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// The same input makes the same bytes, whenever and in whatever order it comes; other input does not.
func TestReproducible(t *testing.T) {
	amd64, arm64 := writeProgram(t, elf.EM_X86_64, elf.PT_LOAD), writeProgram(t, elf.EM_AARCH64, elf.PT_LOAD)
	_, first, name := makeImage(t, "amd64="+amd64, "arm64="+arm64)
	if err := os.Chtimes(amd64, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(arm64, 0o600); err != nil {
		t.Fatal(err)
	}
	_, second, again := makeImage(t, "arm64="+arm64, "amd64="+amd64)
	if name != again || !bytes.Equal(first, second) {
		t.Errorf("two builds made %s and %s, and archives of %d and %d bytes", name, again, len(first), len(second))
	}
	if err := os.WriteFile(amd64, append(read(t, amd64), 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, other := makeImage(t, "arm64="+arm64, "amd64="+amd64); other == name {
		t.Error("another program makes the same digest")
	}
}

func TestRefused(t *testing.T) {
	static := writeProgram(t, elf.EM_X86_64, elf.PT_LOAD)
	dynamic := writeProgram(t, elf.EM_X86_64, elf.PT_INTERP)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f := func(want string, arguments ...string) {
		t.Helper()
		if err := run(arguments, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", arguments, err, want)
		}
	}
	out := filepath.Join(t.TempDir(), "layout")
	f("for EM_X86_64, not for arm64", "-name", "a:b", "-layout", out, "arm64="+static)
	f("CGO_ENABLED=0", "-name", "a:b", "-layout", out, "amd64="+dynamic)
	f("has no tag", "-name", "localhost:5000/kaon", "-layout", out, "amd64="+static)
	f("does not run on \"riscv64\"", "-name", "a:b", "-layout", out, "riscv64="+static)
	f("at least one platform", "-name", "a:b", "-layout", out)
	f("nothing to write", "-name", "a:b", "amd64="+static)
	f("name another directory", "-name", "a:b", "-layout", full, "amd64="+static)
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Error(err)
	}
}
