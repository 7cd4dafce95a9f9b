// Package helm has the chart, and builds the Helm that tests it.
package helm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/kaon-project/kaon/test/sandbox"
)

// ErrNotBuilt is returned where Helm was not built yet.
var ErrNotBuilt = errors.New("there is no Helm: it was not built yet")

var required = regexp.MustCompile(`helm\.sh/helm/v4 (v\S+)`)

// Built returns the path of Helm, in the version that tools/go.mod names, if Build made it before.
func Built() (string, error) {
	path, _, err := place()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotBuilt, err)
	}
	return path, nil
}

// Build builds Helm, once for all checkouts, which takes some minutes of CPU time, and returns its path.
func Build(ctx context.Context) (string, error) {
	path, tools, err := place()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	partial := fmt.Sprintf("%s.%d", path, os.Getpid())
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", partial, "helm.sh/helm/v4/cmd/helm")
	command.Dir, command.Env = tools, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Helm: %w: %s", err, out)
	}
	return path, os.Rename(partial, path)
}

// place returns where Helm is kept, and the module of tools.
func place() (path, tools string, err error) {
	root, err := sandbox.Root()
	if err != nil {
		return "", "", err
	}
	tools = filepath.Join(root, "deploy/helm/tools")
	modules, err := os.ReadFile(filepath.Join(tools, "go.mod"))
	if err != nil {
		return "", "", err
	}
	version := required.FindSubmatch(modules)
	if version == nil {
		return "", "", fmt.Errorf("%s requires no Helm", filepath.Join(tools, "go.mod"))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	return filepath.Join(cache, "kaon", "tools", "helm-"+string(version[1])), tools, nil
}
