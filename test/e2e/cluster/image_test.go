package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestImageIsReproducible(t *testing.T) {
	image := Image{Reference: "kaon.dev/test:1", Entrypoint: []string{"/bin/a"}, Files: map[string][]byte{"/bin/a": []byte("a"), "/bin/b": []byte("b"), "/etc/c/d": nil}}
	var archives [2][]byte
	for i := range archives {
		path := filepath.Join(t.TempDir(), "image.tar")
		if err := image.Write(path); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same image has different archives")
	}
	image.Files["/bin/b"] = []byte("c")
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := image.Write(path); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(archives[0], other) {
		t.Error("different images have the same archive")
	}
}
