package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kernel names a kernel of the matrix.
type Kernel struct {
	Name  string // as in -kernels
	Suite string // Debian's, that has it
	// Series is the beginning of its version, as "6.1"; empty: the newest of
	// the suite.
	Series string
}

// matrix is the kernels that are tested by default. To add one, add a line.
func matrix() []Kernel {
	return []Kernel{
		{Name: "5.10", Suite: "bullseye-security", Series: "5.10"},
		{Name: "6.1", Suite: "bookworm", Series: "6.1"},
		{Name: "6.12", Suite: "trixie", Series: "6.12"},
		{Name: "newest", Suite: "trixie-backports"},
	}
}

// guestModules are modules of Debian's kernels that the guests load, because
// the tests attach to what they provide. A kernel may have them built in.
var guestModules = []string{"veth", "sch_ingress", "cls_bpf", "loop"}

var seriesPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?$`)

// parseKernels reads the value of -kernels. A version that is not in the
// matrix is looked for in trixie-backports.
func parseKernels(list string) ([]Kernel, error) {
	var kernels []Kernel
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if i := slices.IndexFunc(matrix(), func(k Kernel) bool { return k.Name == name }); i >= 0 {
			kernels = append(kernels, matrix()[i])
			continue
		}
		if !seriesPattern.MatchString(name) {
			return nil, fmt.Errorf("-kernels: %q is neither a version as 6.16 nor one of the matrix", name)
		}
		kernels = append(kernels, Kernel{Name: name, Suite: "trixie-backports", Series: name})
	}
	return kernels, nil
}

// release is a kernel's release and its comparable version.
type release struct {
	name    string // "6.12.107+deb13-cloud-amd64"
	version []int  // 6, 12, 107, 13
}

var packagePattern = regexp.MustCompile(`^linux-(image|binary|modules)-([0-9]+\.[0-9][^-]*(?:-[0-9][^-]*)?-cloud-amd64)$`)

// parsePackage reads a package's name as "linux-image-6.1.0-50-cloud-amd64".
// Names of the packages that follow a series ("linux-image-6.1-cloud-amd64")
// are not releases.
func parsePackage(name string) (kind string, r release, ok bool) {
	m := packagePattern.FindStringSubmatch(name)
	if m == nil {
		return "", release{}, false
	}
	r.name = m[2]
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(strings.TrimSuffix(r.name, "-cloud-amd64"), -1) {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return "", release{}, false
		}
		r.version = append(r.version, n)
	}
	return m[1], r, len(r.version) >= 3
}

// inSeries tells whether a release belongs to "6.1", "6.16.3" or, if empty, to any.
func (r release) inSeries(series string) bool {
	if series == "" {
		return true
	}
	for i, part := range strings.Split(series, ".") {
		if i >= len(r.version) || strconv.Itoa(r.version[i]) != part {
			return false
		}
	}
	return true
}

// newest returns the newest release of the series for which there is an image.
func newest(packages []string, series string) (release, bool) {
	var best release
	for _, name := range packages {
		kind, r, ok := parsePackage(name)
		if ok && kind == "image" && r.inSeries(series) && slices.Compare(r.version, best.version) > 0 {
			best = r
		}
	}
	return best, best.name != ""
}

// Cached is a kernel that is ready to boot.
type Cached struct {
	Kernel  string    `json:"kernel"`
	Release string    `json:"release"`
	Package string    `json:"package"`
	Version string    `json:"version"` // of the Debian package
	Suite   string    `json:"suite"`
	Fetched time.Time `json:"fetched"`
	Modules []string  `json:"modules"` // file names, in the order of loading
	// Wanted are the modules that were looked for. Those that are not among
	// Modules are built in, or the kernel does not have them.
	Wanted []string `json:"wantedModules"`

	dir string
}

func (c Cached) image() string { return filepath.Join(c.dir, "vmlinuz") }

// kernelCache keeps kernels outside of the checkout. A directory holds the
// image, the modules and kernel.json.
type kernelCache struct {
	dir string
	log *slog.Logger
}

// defaultCacheDir is $XDG_CACHE_HOME/kaon/kernels.
func defaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory (set -cache): %w", err)
	}
	return filepath.Join(dir, "kaon", "kernels"), nil
}

// lookup returns the cached kernel of that name.
func (c kernelCache) lookup(name string) (Cached, error) {
	var cached Cached
	dir := filepath.Join(c.dir, name)
	data, err := os.ReadFile(filepath.Join(dir, "kernel.json"))
	if err != nil {
		return cached, fmt.Errorf("look up kernel %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &cached); err != nil {
		return cached, fmt.Errorf("read %s: %w", filepath.Join(dir, "kernel.json"), err)
	}
	cached.dir = dir
	return cached, nil
}

// all returns every cached kernel, oldest first.
func (c kernelCache) all() ([]Cached, error) {
	files, err := filepath.Glob(filepath.Join(c.dir, "*", "kernel.json"))
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	var kernels []Cached
	for _, file := range files {
		cached, err := c.lookup(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, cached)
	}
	slices.SortFunc(kernels, func(a, b Cached) int {
		_, ra, _ := parsePackage("linux-image-" + a.Release)
		_, rb, _ := parsePackage("linux-image-" + b.Release)
		return cmp.Or(slices.Compare(ra.version, rb.version), cmp.Compare(a.Kernel, b.Kernel))
	})
	return kernels, nil
}

// get returns the kernels in order. It fetches those that are not cached or,
// with update, that the archive has a newer one of.
func (c kernelCache) get(ctx context.Context, kernels []Kernel, update bool) ([]Cached, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the cache: %w", err)
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	result := make([]Cached, len(kernels))
	for i, kernel := range kernels {
		cached, err := c.lookup(kernel.Name)
		if err == nil && !slices.Equal(cached.Wanted, guestModules) {
			cached = Cached{} // fetched when other modules were wanted
		} else if err == nil && !update {
			result[i] = cached
			continue
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if result[i], err = c.fetch(ctx, kernel, cached); err != nil {
			return nil, fmt.Errorf("fetch kernel %s: %w", kernel.Name, err)
		}
	}
	return result, nil
}

// lock keeps other runs from fetching the same at the same time.
func (c kernelCache) lock(ctx context.Context) (func(), error) {
	file, err := os.OpenFile(filepath.Join(c.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock the cache: %w", err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another run that fetches kernels: %w", ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// fetch gets the newest release of the kernel, unless it is the one that is
// there already, and puts it into the cache in one step.
func (c kernelCache) fetch(ctx context.Context, kernel Kernel, have Cached) (Cached, error) {
	start := time.Now()
	private, err := os.MkdirTemp(c.dir, ".fetch-")
	if err != nil {
		return Cached{}, fmt.Errorf("create a directory: %w", err)
	}
	defer os.RemoveAll(private)
	a, err := newApt(ctx, c.log, private, kernel.Suite)
	if err != nil {
		return Cached{}, err
	}
	packages, err := a.kernelPackages(ctx)
	if err != nil {
		return Cached{}, err
	}
	r, ok := newest(packages, kernel.Series)
	if !ok {
		return Cached{}, fmt.Errorf("find a release %s in %s: %w", kernel.Series, kernel.Suite, errNoPackage)
	}
	if r.name == have.Release {
		return have, nil
	}
	version, err := a.version(ctx, "linux-image-"+r.name)
	if err != nil {
		return Cached{}, err
	}
	cached := Cached{
		Kernel: kernel.Name, Release: r.name, Package: "linux-image-" + r.name,
		Version: version, Suite: kernel.Suite, Fetched: time.Now().UTC().Truncate(time.Second),
		Wanted: guestModules,
	}

	// Newer kernels are split: the image is in linux-binary and the modules
	// are in linux-modules. Take what is found first.
	files := map[string][]byte{}
	bytesFetched := int64(0)
	for _, kind := range []string{"binary", "modules", "image"} {
		name := "linux-" + kind + "-" + r.name
		if !slices.Contains(packages, name) || len(files) == 1+len(guestModules) {
			continue
		}
		c.log.Info("fetching", "kernel", kernel.Name, "package", name)
		file, err := a.download(ctx, name)
		if err != nil {
			return Cached{}, err
		}
		if info, err := os.Stat(file); err == nil {
			bytesFetched += info.Size()
		}
		if err := unpack(ctx, file, func(in io.Reader) error { return pickFiles(tar.NewReader(in), files) }); err != nil {
			return Cached{}, err
		}
	}
	if files["vmlinuz"] == nil {
		return Cached{}, fmt.Errorf("look for vmlinuz in the packages of %s: %w", r.name, errNoPackage)
	}
	dir := filepath.Join(private, "kernel")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Cached{}, fmt.Errorf("create a directory: %w", err)
	}
	for _, module := range guestModules {
		if files[module+".ko"] != nil {
			cached.Modules = append(cached.Modules, module+".ko")
		}
	}
	description, err := json.MarshalIndent(cached, "", "  ")
	if err != nil {
		return Cached{}, fmt.Errorf("describe the kernel: %w", err)
	}
	files["kernel.json"] = append(description, '\n')
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return Cached{}, fmt.Errorf("write the kernel: %w", err)
		}
	}
	cached.dir = filepath.Join(c.dir, kernel.Name)
	if err := os.RemoveAll(cached.dir); err != nil {
		return Cached{}, fmt.Errorf("remove the old kernel: %w", err)
	}
	if err := os.Rename(dir, cached.dir); err != nil {
		return Cached{}, fmt.Errorf("put the kernel into the cache: %w", err)
	}
	c.log.Info("fetched", "kernel", kernel.Name, "release", r.name, "bytes", bytesFetched, "took", time.Since(start).Round(100*time.Millisecond))
	return cached, nil
}

// maxUnpacked bounds the bytes of one file of a package.
const maxUnpacked = 256 << 20

// pickFiles adds the kernel's image as "vmlinuz" and the guest's modules,
// decompressed, as "NAME.ko".
func pickFiles(archive *tar.Reader, files map[string][]byte) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the package: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name, compressed := strings.CutSuffix(path.Base(header.Name), ".xz")
		if strings.HasPrefix(name, "vmlinuz") && !compressed {
			name = "vmlinuz"
		} else if module, ok := strings.CutSuffix(name, ".ko"); !ok || !slices.Contains(guestModules, module) {
			continue
		}
		if header.Size > maxUnpacked {
			return fmt.Errorf("read %s: %d bytes are more than expected", header.Name, header.Size)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return fmt.Errorf("read %s: %w", header.Name, err)
		}
		if compressed {
			cmd := exec.Command("xz", "-dc")
			cmd.Stdin = bytes.NewReader(content)
			if content, err = cmd.Output(); err != nil {
				return fmt.Errorf("decompress %s (is xz-utils installed?): %w", header.Name, err)
			}
		}
		files[name] = content
	}
}
