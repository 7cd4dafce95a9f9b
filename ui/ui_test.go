package ui

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// What is committed in dist was built from what is committed beside it, and was not changed since. No Node is needed to
// know that: dist/SUMS has the sums of both.
func TestBuiltPageIsCurrent(t *testing.T) {
	recorded, err := os.ReadFile("dist/SUMS")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for line := range strings.Lines(string(recorded)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("dist/SUMS: %q", line)
		}
		known = append(known, name)
		data, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("%v: run make ui", err)
			continue
		}
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
			t.Errorf("ui/%s is not what the page was built from or as: run make ui", name)
		}
	}
	want := []string{".npmrc", "build.mjs", "package-lock.json", "package.json", "tsconfig.json"}
	for _, directory := range []string{"src", "dist"} {
		entries, err := os.ReadDir(directory)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := path.Join(directory, e.Name()); name != "dist/SUMS" {
				want = append(want, name)
			}
		}
	}
	slices.Sort(known)
	slices.Sort(want)
	if !slices.Equal(known, want) {
		t.Errorf("dist/SUMS knows %q, but there are %q: run make ui", known, want)
	}
}

// Nothing is fetched from elsewhere, and each file that the page names is there.
func TestPageIsComplete(t *testing.T) {
	assets, err := Assets()
	if err != nil {
		t.Fatal(err)
	}
	index, err := fs.ReadFile(assets, "index.html")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, quoted := range strings.Split(string(index), `"`) {
		if strings.HasPrefix(quoted, "http") || strings.HasPrefix(quoted, "//") {
			t.Errorf("the page names %s", quoted)
		}
		if name, ok := strings.CutPrefix(quoted, "/assets/"); ok {
			named++
			if _, err := fs.Stat(assets, name); err != nil {
				t.Error(err)
			}
		}
	}
	if named < 3 {
		t.Errorf("the page names %d assets", named)
	}
}
