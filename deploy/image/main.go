// Image builds Kaon's container image without an engine: nothing but the static binary and its license, for
// one or more platforms, as an OCI image layout and as an archive of it. The same input makes the same digest.
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	name := flags.String("name", "", "the image's `reference`: REGISTRY/REPOSITORY:TAG")
	directory := flags.String("layout", "", "write an OCI image layout to this `directory`")
	archive := flags.String("archive", "", "write the layout as one `file`, for ctr images import")
	license := flags.String("license", "", "`file` that becomes /LICENSE")
	version := flags.String("version", "", "`version` in the image's labels")
	revision := flags.String("revision", "", "`commit` in the image's labels")
	created := flags.Int64("created", 0, "time of everything in the image, in `seconds` since 1970")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: image -name REFERENCE [options] ARCHITECTURE=BINARY...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *directory == "" && *archive == "" {
		return errors.New("nothing to write: name -layout or -archive")
	}
	im := image{name: *name, created: time.Unix(*created, 0), programs: map[platform][]byte{}}
	im.labels = labels(*version, *revision, im.created)
	if *license != "" {
		text, err := os.ReadFile(*license)
		if err != nil {
			return err
		}
		im.files = append(im.files, file{"/LICENSE", 0o644, text})
	}
	for _, argument := range flags.Args() {
		architecture, path, ok := strings.Cut(argument, "=")
		if !ok {
			return fmt.Errorf("%q: want ARCHITECTURE=BINARY", argument)
		}
		p, content, err := readProgram(architecture, path)
		if err != nil {
			return err
		}
		im.programs[p] = content
	}
	l, err := build(im)
	if err != nil {
		return err
	}
	if *directory != "" {
		if err := l.writeDirectory(*directory); err != nil {
			return err
		}
	}
	if *archive != "" {
		if err := l.writeArchive(*archive, im.created); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s@%s\n", im.name, l.digest)
	return err
}

// labels are the image's, by the names of the OCI specification.
func labels(version, revision string, created time.Time) map[string]string {
	const home = "https://github.com/kaon-project/kaon"
	all := map[string]string{
		"org.opencontainers.image.title":         "kaon",
		"org.opencontainers.image.description":   "Turns eBPF programs into metrics with a Kubernetes identity",
		"org.opencontainers.image.url":           home,
		"org.opencontainers.image.source":        home,
		"org.opencontainers.image.documentation": home + "/tree/main/docs",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.created":       created.UTC().Format(time.RFC3339),
	}
	if version != "" {
		all["org.opencontainers.image.version"] = version
	}
	if revision != "" {
		all["org.opencontainers.image.revision"] = revision
	}
	return all
}

// readProgram reads a binary, which must run on that architecture without anything else.
func readProgram(architecture, path string) (platform, []byte, error) {
	p := platform{OS: "linux", Architecture: architecture}
	var machine elf.Machine
	switch architecture {
	case "amd64":
		machine = elf.EM_X86_64
	case "arm64":
		machine, p.Variant = elf.EM_AARCH64, "v8"
	default:
		return p, nil, fmt.Errorf("%s: Kaon does not run on %q: want amd64 or arm64", path, architecture)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return p, nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return p, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if f.Machine != machine {
		return p, nil, fmt.Errorf("%s is for %v, not for %s", path, f.Machine, architecture)
	}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return p, nil, fmt.Errorf("%s needs shared libraries, of which the image has none: build it with CGO_ENABLED=0", path)
		}
	}
	return p, content, nil
}
