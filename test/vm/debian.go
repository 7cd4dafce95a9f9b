package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	errNoArchive = errors.New("no Debian archive among the machine's apt sources")
	errNoPackage = errors.New("no such kernel in the archive")
)

// source is one archive of the machine's apt configuration.
type source struct {
	uri      string
	suite    string
	main     bool // has the component "main"
	signedBy string
}

// parseSources reads apt's deb822 format (*.sources).
func parseSources(text string) []source {
	var sources []source
	fields := map[string]string{}
	key := ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && !strings.EqualFold(fields["enabled"], "no") {
			for _, uri := range strings.Fields(fields["uris"]) {
				for _, suite := range strings.Fields(fields["suites"]) {
					sources = append(sources, source{
						uri: uri, suite: suite, signedBy: fields["signed-by"],
						main: slices.Contains(strings.Fields(fields["components"]), "main"),
					})
				}
			}
		}
		fields, key = map[string]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t': // continues the field
			if key != "" {
				fields[key] += "\n" + line
			}
		default:
			name, value, found := strings.Cut(line, ":")
			if key = ""; found {
				key = strings.ToLower(strings.TrimSpace(name))
				fields[key] = strings.TrimSpace(value)
			}
		}
	}
	flush()
	return sources
}

// parseSourcesList reads apt's format of one line per source (*.list).
func parseSourcesList(text string) []source {
	var sources []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "deb" {
			continue
		}
		words = words[1:]
		signedBy := ""
		if len(words) > 0 && strings.HasPrefix(words[0], "[") {
			end := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "]") })
			if end < 0 {
				continue
			}
			for _, option := range words[:end+1] {
				option = strings.Trim(option, "[]")
				if value, found := strings.CutPrefix(option, "signed-by="); found {
					signedBy = value
				}
			}
			words = words[end+1:]
		}
		if len(words) < 2 {
			continue
		}
		sources = append(sources, source{uri: words[0], suite: words[1], main: slices.Contains(words[2:], "main"), signedBy: signedBy})
	}
	return sources
}

// machineSources reads the apt configuration below etc, usually /etc/apt.
func machineSources(etc string) ([]source, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("list apt sources: %w", err)
		}
		files = append(files, found...)
	}
	var sources []source
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt sources: %w", err)
		}
		if strings.HasSuffix(file, ".sources") {
			sources = append(sources, parseSources(string(text))...)
		} else {
			sources = append(sources, parseSourcesList(string(text))...)
		}
	}
	return sources, nil
}

// debianSuites are the suites by which an archive is recognised as Debian's.
var debianSuites = []string{
	"bullseye", "bookworm", "trixie", "forky", "duke", "sid",
	"oldoldstable", "oldstable", "stable", "testing", "unstable",
}

// candidates are the archives that may have the suite, best first: the
// machine's, with the suite exchanged.
func candidates(sources []source, suite string) []source {
	_, security := strings.CutSuffix(suite, "-security")
	var found []source
	add := func(s source) {
		s.suite = suite
		if !slices.ContainsFunc(found, func(f source) bool { return f.uri == s.uri }) {
			found = append(found, s)
		}
	}
	for _, s := range sources {
		base, isSecurity := strings.CutSuffix(s.suite, "-security")
		if s.main && isSecurity == security && slices.Contains(debianSuites, base) {
			add(s)
		}
	}
	if security { // mirrors have both archives side by side
		for _, s := range sources {
			if s.main && slices.Contains(debianSuites, s.suite) {
				s.uri = strings.TrimSuffix(s.uri, "/") + "-security"
				add(s)
			}
		}
	}
	// Other archives use Debian's suites too.
	rank := func(s source) int {
		if name := path.Base(s.uri); name == "debian" || name == "debian-security" {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(found, func(a, b source) int { return rank(a) - rank(b) })
	return found
}

// stanza is the source for apt: only the list of packages, and only amd64.
func (s source) stanza() string {
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: amd64\nTargets: Packages\n", s.uri, s.suite)
	if s.signedBy != "" {
		text += "Signed-By: " + s.signedBy + "\n"
	}
	return text
}

// apt runs apt with sources and state of its own: the machine's package lists
// and installed packages are neither read nor changed.
type apt struct {
	dir string // private, of this suite
	log *slog.Logger
}

// newApt prepares dir and gets the suite's list of packages from the first
// archive that has it.
func newApt(ctx context.Context, log *slog.Logger, dir, suite string) (*apt, error) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("get kernel packages: %s is missing: kernels can be fetched on Debian only (elsewhere copy a filled cache)", tool)
		}
	}
	sources, err := machineSources("/etc/apt")
	if err != nil {
		return nil, err
	}
	found := candidates(sources, suite)
	if len(found) == 0 {
		return nil, fmt.Errorf("get %s: %w: add one to /etc/apt/sources.list.d", suite, errNoArchive)
	}
	a := &apt{dir: dir, log: log}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("prepare apt's directories: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), nil, 0o600); err != nil {
		return nil, fmt.Errorf("prepare apt's directories: %w", err)
	}
	var failures []error
	for _, s := range found {
		if err := os.WriteFile(filepath.Join(dir, "kernel.sources"), []byte(s.stanza()), 0o600); err != nil {
			return nil, fmt.Errorf("write apt sources: %w", err)
		}
		// Without this option apt-get update succeeds with old or no lists.
		_, err := a.run(ctx, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
		if err == nil {
			return a, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("get the list of packages of %s: %w", suite, errors.Join(failures...))
}

// attempts is how often a command that uses the network is tried, each with
// apt's own retries.
const attempts = 3

// run runs an apt command in the private directory and returns what it prints.
func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	options := []string{
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(a.dir, "kernel.sources"),
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::Retries=4",
		"-o", "APT::Architecture=amd64",
		// The unprivileged user of apt can't read this directory.
		"-o", "APT::Sandbox::User=root",
	}
	var err error
	for attempt := range attempts {
		if attempt > 0 {
			a.log.Warn("trying again", "command", name+" "+args[len(args)-1], "error", err)
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case <-time.After(time.Duration(attempt) * 5 * time.Second):
			}
		}
		cmd := exec.CommandContext(ctx, name, append(options, args...)...)
		cmd.Dir = a.dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		var out []byte
		if out, err = cmd.Output(); err == nil {
			return string(out), nil
		}
		err = fmt.Errorf("run %s %s: %w: %s", name, args[len(args)-1], err, strings.TrimSpace(stderr.String()))
		if ctx.Err() != nil || name == "apt-cache" {
			break
		}
	}
	return "", err
}

// kernelPackages are the names of the kernel's packages that the suite has.
func (a *apt) kernelPackages(ctx context.Context) ([]string, error) {
	out, err := a.run(ctx, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return nil, err
	}
	return strings.Fields(out), nil
}

// version is the Debian version of a package, as "6.1.176-1".
func (a *apt) version(ctx context.Context, name string) (string, error) {
	out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", err
	}
	scanner := bufio.NewScanner(strings.NewReader(out))
	for scanner.Scan() {
		if v, ok := strings.CutPrefix(scanner.Text(), "Version: "); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("read the version of %s: %w", name, errNoPackage)
}

// download fetches a package, which apt verifies, and returns its path.
func (a *apt) download(ctx context.Context, name string) (string, error) {
	old, err := filepath.Glob(filepath.Join(a.dir, "*.deb"))
	if err != nil {
		return "", fmt.Errorf("look for old packages: %w", err)
	}
	for _, file := range old {
		_ = os.Remove(file)
	}
	if _, err := a.run(ctx, "apt-get", "-q", "download", name); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("download %s: found %d packages (%w)", name, len(found), errNoPackage)
	}
	return found[0], nil
}

// unpack hands the tar stream of a package's files to read, without
// installing anything.
func unpack(ctx context.Context, file string, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // read may stop before the end
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
	}
	readErr := read(out)
	if readErr == nil {
		_, readErr = io.Copy(io.Discard, out)
	}
	cancelled := readErr != nil
	if cancelled {
		cancel()
	}
	err = cmd.Wait()
	if cancelled {
		return fmt.Errorf("unpack %s: %w", filepath.Base(file), readErr)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w: %s", filepath.Base(file), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
