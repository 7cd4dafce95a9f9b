package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification 1.1.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type config struct {
	platform
	Created string          `json:"created"`
	Config  containerConfig `json:"config"`
	RootFS  struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type containerConfig struct {
	User         string
	ExposedPorts map[string]struct{}
	Env          []string
	Entrypoint   []string
	WorkingDir   string
	Labels       map[string]string
}

type history struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// file is one file of an image.
type file struct {
	path    string // absolute
	mode    int64
	content []byte
}

// layout is an OCI image layout: files by their path in it.
type layout struct {
	files map[string][]byte
	// digest of the image for all platforms.
	digest string
}

// image says what is built.
type image struct {
	// Name is the whole reference: REGISTRY/REPOSITORY:TAG.
	name string
	// Created is the time of everything in it.
	created time.Time
	labels  map[string]string
	// Files of all platforms, and the program by platform.
	files    []file
	programs map[platform][]byte
}

// build makes the layout of an image whose only program is /kaon. The same input makes the same bytes.
func build(im image) (*layout, error) {
	_, tag, ok := strings.Cut(im.name[strings.LastIndex(im.name, "/")+1:], ":")
	if !ok || tag == "" {
		return nil, fmt.Errorf("name %q: it has no tag: want REPOSITORY:TAG", im.name)
	}
	if len(im.programs) == 0 {
		return nil, errors.New("an image needs a program for at least one platform")
	}
	l := &layout{files: map[string][]byte{}}
	platforms := make([]platform, 0, len(im.programs))
	for p := range im.programs {
		platforms = append(platforms, p)
	}
	slices.SortFunc(platforms, func(a, b platform) int { return strings.Compare(a.Architecture, b.Architecture) })
	all := index{SchemaVersion: 2, MediaType: mediaIndex, Annotations: im.labels}
	for _, p := range platforms {
		d, err := l.addPlatform(im, p)
		if err != nil {
			return nil, err
		}
		all.Manifests = append(all.Manifests, d)
	}
	whole, err := l.addJSON(mediaIndex, all)
	if err != nil {
		return nil, err
	}
	l.digest = whole.Digest
	// The specification has the tag in ref.name; containerd takes the whole name from an annotation of its own.
	whole.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": im.name}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{whole}})
	if err != nil {
		return nil, err
	}
	l.files["index.json"] = top
	l.files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return l, nil
}

// addPlatform adds the image of one platform.
func (l *layout) addPlatform(im image, p platform) (descriptor, error) {
	files := append([]file{{"/kaon", 0o755, im.programs[p]}}, im.files...)
	var plain, packed bytes.Buffer
	if err := writeLayer(&plain, files, im.created); err != nil {
		return descriptor{}, err
	}
	compressor, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return descriptor{}, err
	}
	if _, err := compressor.Write(plain.Bytes()); err != nil {
		return descriptor{}, err
	}
	if err := compressor.Close(); err != nil {
		return descriptor{}, err
	}
	created := im.created.UTC().Format(time.RFC3339)
	c := config{platform: p, Created: created, History: []history{{created, "deploy/image"}}, Config: containerConfig{
		// Programs are loaded into the kernel of the machine: capabilities of an ordinary user don't suffice everywhere.
		User: "0:0", ExposedPorts: map[string]struct{}{"9497/tcp": {}}, Env: []string{"PATH=/"},
		Entrypoint: []string{"/kaon"}, WorkingDir: "/", Labels: im.labels,
	}}
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{digest(plain.Bytes())}
	configuration, err := l.addJSON(mediaConfig, c)
	if err != nil {
		return descriptor{}, err
	}
	d, err := l.addJSON(mediaManifest, manifest{
		SchemaVersion: 2, MediaType: mediaManifest, Config: configuration,
		Layers: []descriptor{l.add(mediaLayer, packed.Bytes())}, Annotations: im.labels,
	})
	d.Platform = &p
	return d, err
}

func (l *layout) add(mediaType string, content []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
	l.files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)] = content
	return d
}

func (l *layout) addJSON(mediaType string, value any) (descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, text), nil
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// writeLayer writes the files, and the directories that they are in, as root's.
func writeLayer(w io.Writer, files []file, created time.Time) error {
	directories := map[string]int64{"tmp/": 0o1777}
	for _, f := range files {
		for d := filepath.Dir(f.path); d != "/"; d = filepath.Dir(d) {
			directories[d[1:]+"/"] = 0o755
		}
	}
	entries := make([]tar.Header, 0, len(files)+len(directories))
	contents := map[string][]byte{}
	for d, mode := range directories {
		entries = append(entries, tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: mode})
	}
	for _, f := range files {
		entries = append(entries, tar.Header{Typeflag: tar.TypeReg, Name: f.path[1:], Mode: f.mode, Size: int64(len(f.content))})
		contents[f.path[1:]] = f.content
	}
	return writeTar(w, entries, contents, created)
}

// writeTar writes the entries by name.
func writeTar(w io.Writer, entries []tar.Header, contents map[string][]byte, created time.Time) error {
	slices.SortFunc(entries, func(a, b tar.Header) int { return strings.Compare(a.Name, b.Name) })
	writer := tar.NewWriter(w)
	for _, e := range entries {
		e.ModTime, e.Format = created.UTC().Truncate(time.Second), tar.FormatPAX
		if err := writer.WriteHeader(&e); err != nil {
			return fmt.Errorf("write %s into the archive: %w", e.Name, err)
		}
		if _, err := writer.Write(contents[e.Name]); err != nil {
			return fmt.Errorf("write %s into the archive: %w", e.Name, err)
		}
	}
	return writer.Close()
}

// writeDirectory writes the layout into a directory, which it replaces.
func (l *layout) writeDirectory(path string) error {
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err == nil {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	} else if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty and no image layout: name another directory", path)
	}
	for name, content := range l.files {
		name = filepath.Join(path, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeArchive writes the layout as one file, which `ctr images import`, `podman load` and `docker load` (25 and later) take.
func (l *layout) writeArchive(path string, created time.Time) error {
	entries := make([]tar.Header, 0, len(l.files))
	for name, content := range l.files {
		entries = append(entries, tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))})
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(f, entries, l.files, created), f.Close())
}
