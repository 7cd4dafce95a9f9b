package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// WorkloadImage is the image of the command workload/, which every node has. It is also what sandboxes run. Use it with
// imagePullPolicy Never, or IfNotPresent.
const WorkloadImage = "kaon.dev/workload:test"

// Image is what an OCI image of one layer is made of.
type Image struct {
	// Reference is the image's full name with its tag.
	Reference  string
	Entrypoint []string
	// User is a number, or empty for root.
	User string
	// Files are the contents of executables by absolute path.
	Files map[string][]byte
}

// WriteWorkloadImage writes the archive of WorkloadImage.
func WriteWorkloadImage(ctx context.Context, archive string) error {
	binary, err := ownBinary(ctx, "workload")
	if err != nil {
		return err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	image := Image{Reference: WorkloadImage, Entrypoint: []string{"/workload"}, Files: map[string][]byte{"/workload": content}}
	return image.Write(archive)
}

// Write writes an OCI archive that containerd imports. The same image gives the same bytes.
func (i Image) Write(archive string) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	blobs := map[string][]byte{}
	add := func(mediaType string, content []byte) map[string]any {
		digest := sha256.Sum256(content)
		name := hex.EncodeToString(digest[:])
		blobs["blobs/sha256/"+name] = content
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + name, "size": len(content)}
	}
	layerDescriptor := add("application/vnd.oci.image.layer.v1.tar", layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.Entrypoint, "User": i.User, "Env": []string{"PATH=/"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{layerDescriptor["digest"]}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": add("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{layerDescriptor},
	})
	if err != nil {
		return err
	}
	manifestDescriptor := add("application/vnd.oci.image.manifest.v1+json", manifest)
	manifestDescriptor["platform"] = map[string]any{"architecture": runtime.GOARCH, "os": "linux"}
	manifestDescriptor["annotations"] = map[string]any{
		"io.containerd.image.name":          i.Reference,
		"org.opencontainers.image.ref.name": i.Reference[strings.LastIndex(i.Reference, ":")+1:],
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{manifestDescriptor}})
	if err != nil {
		return err
	}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"] = index
	content, err := pack(nil, blobs, 0o644)
	if err != nil {
		return err
	}
	return os.WriteFile(archive, content, 0o644)
}

// layer returns the image's files, and the folders that the files and container runtimes need.
func (i Image) layer() ([]byte, error) {
	directories := map[string]bool{"dev": true, "etc": true, "proc": true, "run": true, "sys": true, "tmp": true, "var": true}
	files := map[string][]byte{}
	for name, content := range i.Files {
		name = strings.TrimPrefix(path.Clean(name), "/")
		files[name] = content
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			directories[d] = true
		}
	}
	return pack(slices.Sorted(maps.Keys(directories)), files, 0o755)
}

// pack returns a tar archive.
func pack(directories []string, files map[string][]byte, mode int64) ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	epoch := time.Unix(0, 0)
	for _, name := range directories {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch}
		if name == "tmp" {
			header.Mode = 0o1777
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(files[name])), ModTime: epoch}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	err := w.Close()
	return buffer.Bytes(), err
}
