package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParsePackage(t *testing.T) {
	f := func(name, kind, releaseName string, version ...int) {
		t.Helper()
		gotKind, r, ok := parsePackage(name)
		if !ok || gotKind != kind || r.name != releaseName || !slices.Equal(r.version, version) {
			t.Errorf("parsePackage(%q) = %q, %+v, %v", name, gotKind, r, ok)
		}
	}
	f("linux-image-5.10.0-46-cloud-amd64", "image", "5.10.0-46-cloud-amd64", 5, 10, 0, 46)
	f("linux-image-6.1.0-0.deb11.52-cloud-amd64", "image", "6.1.0-0.deb11.52-cloud-amd64", 6, 1, 0, 0, 11, 52)
	f("linux-image-6.12.107+deb13-cloud-amd64", "image", "6.12.107+deb13-cloud-amd64", 6, 12, 107, 13)
	f("linux-binary-7.2.12+deb13-cloud-amd64", "binary", "7.2.12+deb13-cloud-amd64", 7, 2, 12, 13)
	f("linux-modules-7.2.12+deb13-cloud-amd64", "modules", "7.2.12+deb13-cloud-amd64", 7, 2, 12, 13)

	refused := func(name string) {
		t.Helper()
		if kind, r, ok := parsePackage(name); ok {
			t.Errorf("parsePackage(%q) = %q, %+v", name, kind, r)
		}
	}
	refused("linux-image-cloud-amd64")
	refused("linux-image-6.1-cloud-amd64")
	refused("linux-image-6.1.0-50-amd64")
	refused("linux-image-6.1.0-50-cloud-amd64-unsigned")
	refused("linux-image-6.1.0-50-cloud-amd64-dbg")
	refused("linux-image-6.1.0-50-cloud-arm64")
	refused("linux-headers-6.1.0-50-cloud-amd64")
	refused("linux-image-6.1.99999999999999999999-cloud-amd64")
	refused("")
}

func TestNewest(t *testing.T) {
	packages := []string{
		"linux-image-cloud-amd64",
		"linux-image-6.9.9+deb13-cloud-amd64",
		"linux-image-6.16.3+deb13-cloud-amd64",
		"linux-image-6.16.12+deb13-cloud-amd64",
		"linux-image-6.1.0-9-cloud-amd64",
		"linux-image-6.1.0-10-cloud-amd64",
		"linux-image-7.2.12+deb13-cloud-amd64",
		"linux-modules-7.3.4+deb13-cloud-amd64", // its image is not there yet
	}
	f := func(series, want string) {
		t.Helper()
		r, ok := newest(packages, series)
		if ok != (want != "") || r.name != want {
			t.Errorf("newest(%q) = %q, want %q", series, r.name, want)
		}
	}
	f("", "7.2.12+deb13-cloud-amd64")
	f("6.16", "6.16.12+deb13-cloud-amd64")
	f("6.16.3", "6.16.3+deb13-cloud-amd64")
	f("6.1", "6.1.0-10-cloud-amd64")
	f("6.2", "")
	f("7.3", "")
	f("6.16.12.13.1", "")
}

func TestParseKernels(t *testing.T) {
	got, err := parseKernels("newest, 5.10,6.16.3")
	if err != nil {
		t.Fatal(err)
	}
	want := []Kernel{
		{Name: "newest", Suite: "trixie-backports"},
		{Name: "5.10", Suite: "bullseye-security", Series: "5.10"},
		{Name: "6.16.3", Suite: "trixie-backports", Series: "6.16.3"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "6", "6.1,", "latest", "6.1/../x", "../6.1"} {
		if kernels, err := parseKernels(bad); err == nil {
			t.Errorf("parseKernels(%q) = %+v", bad, kernels)
		}
	}
}

func TestParseSources(t *testing.T) {
	const text = `# comment
Types: deb deb-src
# a comment within
URIs: https://a.test/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /k.gpg

Types: deb
Enabled: no
URIs: https://b.test/debian
Suites: bookworm
Components: main


Types: deb-src
URIs: https://c.test/debian
Suites: bookworm
Components: main

types: deb
uris: https://d.test/debian-security https://e.test/debian-security/
suites: bookworm-security
components: non-free`
	want := []source{
		{uri: "https://a.test/debian", suite: "bookworm", main: true, signedBy: "/k.gpg"},
		{uri: "https://a.test/debian", suite: "bookworm-updates", main: true, signedBy: "/k.gpg"},
		{uri: "https://d.test/debian-security", suite: "bookworm-security"},
		{uri: "https://e.test/debian-security/", suite: "bookworm-security"},
	}
	if got := parseSources(text); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseSourcesList(t *testing.T) {
	const text = `
# deb https://x.test/debian bookworm main
deb https://a.test/debian bookworm main # comment
deb [arch=amd64 signed-by=/k.gpg] https://b.test/debian trixie contrib main
deb [signed-by=/k.gpg] https://c.test/debian trixie contrib
deb-src https://d.test/debian bookworm main
deb [arch=amd64
deb
`
	want := []source{
		{uri: "https://a.test/debian", suite: "bookworm", main: true},
		{uri: "https://b.test/debian", suite: "trixie", main: true, signedBy: "/k.gpg"},
		{uri: "https://c.test/debian", suite: "trixie", signedBy: "/k.gpg"},
	}
	if got := parseSourcesList(text); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestCandidates(t *testing.T) {
	sources := []source{
		{uri: "https://tools.test/apt", suite: "bookworm", main: true},
		{uri: "https://other.test/debian", suite: "bookworm"},
		{uri: "https://node.test/node", suite: "nodistro", main: true},
		{uri: "https://a.test/debian", suite: "bookworm", main: true, signedBy: "/k.gpg"},
		{uri: "https://a.test/debian", suite: "bookworm-updates", main: true},
		{uri: "https://a.test/debian-security", suite: "bookworm-security", main: true},
	}
	f := func(sources []source, suite string, want ...string) {
		t.Helper()
		var got []string
		for _, s := range candidates(sources, suite) {
			got = append(got, s.uri+" "+s.suite)
		}
		if !slices.Equal(got, want) {
			t.Errorf("candidates(%s) = %q, want %q", suite, got, want)
		}
	}
	f(sources, "trixie-backports", "https://a.test/debian trixie-backports", "https://tools.test/apt trixie-backports")
	f(sources, "bullseye-security", "https://a.test/debian-security bullseye-security", "https://tools.test/apt-security bullseye-security")
	f(sources[3:4], "bullseye-security", "https://a.test/debian-security bullseye-security")
	f(sources[2:3], "trixie")
	f([]source{{uri: "https://u.test/ubuntu", suite: "noble", main: true}}, "trixie")

	stanza := candidates(sources, "trixie")[0].stanza()
	if !strings.Contains(stanza, "Suites: trixie\n") || !strings.Contains(stanza, "Signed-By: /k.gpg\n") {
		t.Errorf("stanza is\n%s", stanza)
	}
}

func FuzzParseSources(f *testing.F) {
	f.Add("Types: deb\nURIs: https://a.test/debian\nSuites: bookworm\nComponents: main\n")
	f.Add("deb [signed-by=/k] https://a.test/debian bookworm main")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseSources(text), parseSourcesList(text)...) {
			if s.uri == "" || s.suite == "" {
				t.Errorf("an empty source from %q: %+v", text, s)
			}
		}
	})
}

func TestCacheLookup(t *testing.T) {
	cache := kernelCache{dir: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	if _, err := cache.lookup("6.1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a kernel that is not there gave %v", err)
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(cache.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cache.dir, name, "kernel.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	encoded, err := json.Marshal(guestModules)
	if err != nil {
		t.Fatal(err)
	}
	wanted := string(encoded)
	write("6.12", `{"kernel":"6.12","release":"6.12.107+deb13-cloud-amd64","wantedModules":`+wanted+`}`)
	write("6.1", `{"kernel":"6.1","release":"6.1.0-50-cloud-amd64","wantedModules":`+wanted+`}`)
	got, err := cache.get(t.Context(), []Kernel{{Name: "6.12"}, {Name: "6.1"}}, false)
	if err != nil || len(got) != 2 || got[0].image() != filepath.Join(cache.dir, "6.12", "vmlinuz") {
		t.Errorf("got %+v, %v", got, err)
	}
	all, err := cache.all()
	if err != nil || len(all) != 2 || all[0].Kernel != "6.1" || all[1].Kernel != "6.12" {
		t.Errorf("all kernels are %+v, %v", all, err)
	}
	write("7.0", `{"kernel`)
	if _, err := cache.all(); err == nil {
		t.Error("a damaged description gave no error")
	}
}

func TestPickFiles(t *testing.T) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, file := range []struct{ name, content string }{
		{"./boot/vmlinuz-6.1.0-50-cloud-amd64", "kernel"},
		{"./boot/System.map-6.1.0-50-cloud-amd64", "map"},
		{"./lib/modules/6.1.0-50-cloud-amd64/kernel/drivers/net/veth.ko", "veth"},
		{"./lib/modules/6.1.0-50-cloud-amd64/kernel/drivers/net/tun.ko", "tun"},
	} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(file.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	if err := pickFiles(tar.NewReader(&buffer), files); err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || string(files["vmlinuz"]) != "kernel" || string(files["veth.ko"]) != "veth" {
		t.Errorf("picked %q", files)
	}
	if err := pickFiles(tar.NewReader(strings.NewReader("no archive")), files); err == nil {
		t.Error("a damaged package gave no error")
	}
}
