package cluster

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Versions of what Build builds. The modules below tools/ name the same ones.
const (
	KubernetesVersion = "v1.35.4"
	EtcdVersion       = "v3.6.16"
	PrometheusVersion = "v0.315.0"
)

// Errors of a machine that can't run a cluster. Tests skip with their text.
var (
	ErrNoRoot     = errors.New("needs root")
	ErrNoBinaries = errors.New("needs the cluster's binaries (make e2e builds them)")
	ErrNoRuntime  = errors.New("needs containerd and what it calls (.ci/install e2e)")
	ErrNoCgroup   = errors.New("needs cgroup v2")
	ErrNoSource   = errors.New("needs the source: run it in the repository")
)

// build is what one module below tools/ gives.
type build struct {
	module   string
	version  string
	packages []string
	flags    string // of the linker
	tags     string
}

func builds() []build {
	const version = "k8s.io/component-base/version"
	kubernetes := build{
		module: "kubernetes", version: KubernetesVersion,
		flags: "-X " + version + ".gitVersion=" + KubernetesVersion + " -X " + version + ".gitMajor=1 -X " + version + ".gitMinor=35 -X " + version + ".gitTreeState=clean",
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"} {
		kubernetes.packages = append(kubernetes.packages, "k8s.io/kubernetes/cmd/"+name)
	}
	return []build{
		{module: "etcd", version: EtcdVersion, packages: []string{"go.etcd.io/etcd/server/v3"}},
		kubernetes,
		{
			module: "prometheus", version: PrometheusVersion, packages: []string{"github.com/prometheus/prometheus/cmd/prometheus"},
			// Other clouds' service discovery is most of the compiler's work.
			tags:  "remove_all_sd,enable_kubernetes_sd",
			flags: "-X github.com/prometheus/common/version.Version=" + PrometheusVersion,
		},
	}
}

// name returns the file's name of a package's binary.
func (b build) name(pkg string) string {
	if b.module == "etcd" {
		return "etcd"
	}
	return filepath.Base(pkg)
}

func (b build) directory(cache string) string { return filepath.Join(cache, b.module+"-"+b.version) }

// Cache returns the folder of the binaries: $XDG_CACHE_HOME/kaon/cluster.
func Cache() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "kaon", "cluster"), err
}

// Binary returns the path of etcd, kubectl, prometheus, ..., or an error that wraps ErrNoBinaries.
func Binary(name string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	for _, b := range builds() {
		for _, pkg := range b.packages {
			if b.name(pkg) != name {
				continue
			}
			path := filepath.Join(b.directory(cache), name)
			if _, err := os.Stat(path); err != nil {
				return "", fmt.Errorf("%w: %s %s", ErrNoBinaries, name, b.version)
			}
			return path, nil
		}
	}
	return "", fmt.Errorf("no binary is named %s", name)
}

// Build builds the binaries that the cache lacks: some ten minutes of one processor for Kubernetes. What the compiler
// says goes to log.
func Build(ctx context.Context, log io.Writer) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	for _, b := range builds() {
		directory := b.directory(cache)
		if _, err := os.Stat(directory); err == nil {
			continue
		}
		begin := time.Now()
		fmt.Fprintf(log, "building %s %s, once\n", b.module, b.version)
		source, err := goList(ctx)
		if err != nil {
			return err
		}
		temporary, err := os.MkdirTemp(cache, "building-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary)
		for _, pkg := range b.packages {
			output := filepath.Join(temporary, b.name(pkg))
			if err := goBuild(ctx, log, filepath.Join(source, "tools", b.module), output, b, pkg); err != nil {
				return err
			}
		}
		if err := os.Chmod(temporary, 0o755); err != nil {
			return err
		}
		if err := os.Rename(temporary, directory); err != nil {
			return err
		}
		fmt.Fprintf(log, "built %s %s in %v\n", b.module, b.version, time.Since(begin).Round(time.Second))
	}
	return nil
}

// home is this package.
const home = "github.com/kaon-project/kaon/test/e2e/cluster"

// goList returns the folder of this package's source.
func goList(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", home).Output()
	if err != nil {
		return "", fmt.Errorf("%w: go list %s: %w", ErrNoSource, home, err)
	}
	return strings.TrimSpace(string(output)), nil
}

func goBuild(ctx context.Context, log io.Writer, directory, output string, b build, pkg string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", b.tags, "-ldflags", "-s -w "+b.flags, "-o", output, pkg)
	command.Dir = directory
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	command.Stdout, command.Stderr = log, log
	if err := command.Run(); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

//go:embed keeper/*.go workload/*.go
var commands embed.FS

// ownBinary returns the path of one of this package's own commands, which is built when its source is new.
func ownBinary(ctx context.Context, name string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
	err = fs.WalkDir(commands, name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := commands.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(content), content)
		return err
	})
	if err != nil {
		return "", err
	}
	binary := filepath.Join(cache, fmt.Sprintf("%s-%x", name, sum.Sum(nil)[:8]))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	source, err := goList(ctx)
	if err != nil {
		return "", err
	}
	temporary, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	var log strings.Builder
	if err := goBuild(ctx, &log, source, filepath.Join(temporary, name), build{}, home+"/"+name); err != nil {
		return "", fmt.Errorf("%w\n%s", err, log.String())
	}
	if err := os.Rename(filepath.Join(temporary, name), binary); err != nil {
		return "", err
	}
	// Those of former sources are of no use; other checkouts' are younger.
	former, _ := filepath.Glob(filepath.Join(cache, name+"-*"))
	for _, f := range former {
		if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			_ = os.Remove(f)
		}
	}
	return binary, nil
}

// lock takes a file's lock, and returns what gives it back.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}
