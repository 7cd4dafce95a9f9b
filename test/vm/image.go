package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaon-project/kaon/test/vm/console"
)

// defaultPackages are tested when none are named, as far as they exist.
func defaultPackages() []string {
	return []string{
		"./test/vm/smoke", "./bpf", "./internal/engine", "./internal/series",
		"./internal/workload", "./internal/agent", "./internal/profile", "./internal/ebpfexporter",
		"./internal/lab/cgroup", "./internal/lab/inject", "./internal/lab/kernelview", "./programs/...",
	}
}

// sharedDirs are in every image besides the packages' own files, because tests
// of several packages read them.
func sharedDirs() []string { return []string{"bpf", "programs"} }

// testPackage is a package with tests.
type testPackage struct {
	name   string // "./internal/engine"
	dir    string // relative to the module: "internal/engine"
	binary string // path of the test binary on the host
	// buildError is why there is no binary.
	buildError error
}

// listPackages resolves patterns to packages in the module at root. Packages
// without tests are returned by name only. A package that does not compile is
// returned too: building it says why.
func listPackages(ctx context.Context, root string, patterns []string) (packages []testPackage, untested []string, err error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-f",
		`{{.Dir}}{{"\t"}}{{len .TestGoFiles}}{{"\t"}}{{len .XTestGoFiles}}{{"\t"}}{{with .Error}}{{printf "%q" .Err}}{{end}}`, "--"}, patterns...)...)
	cmd.Dir = root
	cmd.Env = buildEnvironment()
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("list packages %s: %w", strings.Join(patterns, " "), err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(fields) != 4 || fields[0] == "" {
			return nil, nil, fmt.Errorf("list packages %s: %s", strings.Join(patterns, " "), strings.TrimSpace(line))
		}
		dir, err := filepath.Rel(root, fields[0])
		if err != nil || strings.HasPrefix(dir, "..") {
			return nil, nil, fmt.Errorf("list packages: %s is not in this module", fields[0])
		}
		name := "./" + filepath.ToSlash(dir)
		noFiles := fields[3] == "" || strings.Contains(fields[3], "no Go files")
		if fields[1] == "0" && fields[2] == "0" && noFiles {
			untested = append(untested, name)
			continue
		}
		if !slices.ContainsFunc(packages, func(p testPackage) bool { return p.name == name }) {
			packages = append(packages, testPackage{name: name, dir: dir})
		}
	}
	return packages, untested, nil
}

// existing returns the patterns whose directory exists in root.
func existing(root string, patterns []string) []string {
	return slices.DeleteFunc(patterns, func(pattern string) bool {
		info, err := os.Stat(filepath.Join(root, strings.TrimSuffix(pattern, "/...")))
		return err != nil || !info.IsDir()
	})
}

func buildEnvironment() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-trimpath")
}

// build builds the guest's init and the test binaries into dir. A package that
// does not build has its buildError set, the others are built all the same.
func build(ctx context.Context, root, dir string, packages []testPackage) error {
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = root
		cmd.Env = buildEnvironment()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	// Debugging information would make the image half as large again.
	const ldflags = "-ldflags=-s -w"
	if err := run("build", ldflags, "-o", filepath.Join(dir, "init"), "./test/vm/init"); err != nil {
		return fmt.Errorf("build the guest's init: %w", err)
	}
	for i := range packages {
		p := &packages[i]
		p.binary = filepath.Join(dir, strings.ReplaceAll(p.dir, string(filepath.Separator), "-")+".test")
		if err := run("test", "-c", ldflags, "-o", p.binary, p.name); err != nil {
			p.buildError = fmt.Errorf("build the tests of %s: %w", p.name, err)
		}
	}
	return ctx.Err()
}

// guestRoot is the module's place in the guest.
const guestRoot = "/kaon"

// imageOptions say how the tests are run.
type imageOptions struct {
	run     string // regular expression of tests
	timeout time.Duration
}

// writeImage writes the initramfs of one kernel to file.
func writeImage(file, root, buildDir string, packages []testPackage, kernel Cached, options imageOptions) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("create the image: %w", err)
	}
	defer func() {
		if closeErr := out.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("write the image: %w", closeErr)
		}
	}()
	// The emulated machine decompresses at a crawl and nothing is stored for
	// long: speed goes before size.
	compressed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("compress the image: %w", err)
	}
	archive := newCPIOWriter(compressed)
	if err := fillImage(archive, root, buildDir, packages, kernel, options); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("compress the image: %w", err)
	}
	return nil
}

func fillImage(archive *cpioWriter, root, buildDir string, packages []testPackage, kernel Cached, options imageOptions) error {
	addFile := func(name, from string) error {
		info, err := os.Stat(from)
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		return archive.File(name, uint32(info.Mode().Perm()), content)
	}
	if err := archive.CharacterDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sys", "tmp", "run", "root", "bin"} {
		if err := archive.Directory(dir); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"etc/passwd":   "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":    "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":    "127.0.0.1 localhost kaon-vm\n::1 localhost\n",
		"etc/hostname": "kaon-vm\n",
	} {
		if err := archive.File(name, 0o644, []byte(content)); err != nil {
			return err
		}
	}
	if err := addFile("init", filepath.Join(buildDir, "init")); err != nil {
		return err
	}
	var plan console.Plan
	for _, module := range kernel.Modules {
		if err := addFile("modules/"+module, filepath.Join(kernel.dir, module)); err != nil {
			return err
		}
		plan.Modules = append(plan.Modules, "/modules/"+module)
	}
	added := map[string]bool{}
	for _, p := range packages {
		if p.buildError != nil {
			continue
		}
		binary := path.Join(guestRoot, filepath.ToSlash(p.dir), filepath.Base(p.binary))
		if err := addFile(binary, p.binary); err != nil {
			return err
		}
		args := []string{"-test.v=test2json", "-test.timeout=" + options.timeout.String(), "-test.count=1"}
		if options.run != "" {
			args = append(args, "-test.run="+options.run)
		}
		plan.Packages = append(plan.Packages, console.PackagePlan{
			Name: p.name, Dir: path.Join(guestRoot, filepath.ToSlash(p.dir)), Path: binary, Args: args,
		})
	}
	// What tests read, at its place in the module.
	dirs := sharedDirs()
	for _, p := range packages {
		dirs = append(dirs, p.dir)
	}
	files, err := testFiles(root, dirs)
	if err != nil {
		return err
	}
	for _, file := range append([]string{"go.mod"}, files...) {
		if added[file] {
			continue
		}
		added[file] = true
		if err := addFile(path.Join(guestRoot, filepath.ToSlash(file)), filepath.Join(root, file)); err != nil {
			return err
		}
	}
	description, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	return archive.File(console.PlanPath, 0o644, description)
}

// testFiles are the files below dirs that tests read, relative to root:
// everything in testdata, and by extension besides. Nested packages are left to
// themselves except in the shared directories.
func testFiles(root string, dirs []string) ([]string, error) {
	extensions := []string{".o", ".h", ".c", ".bt", ".yaml", ".yml", ".json", ".btf"}
	var files []string
	for _, dir := range dirs {
		nested := slices.Contains(sharedDirs(), dir)
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && name == filepath.Join(root, dir) {
				return nil // a shared directory that is not there
			}
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			inTestdata := slices.Contains(strings.Split(filepath.ToSlash(relative), "/"), "testdata")
			switch {
			case entry.IsDir():
				if relative != dir && !nested && !inTestdata {
					return fs.SkipDir
				}
			case entry.Type().IsRegular() && (inTestdata || slices.Contains(extensions, path.Ext(name))):
				// Inputs that a fuzzer found are for the native tests.
				if !strings.Contains(filepath.ToSlash(relative), "testdata/fuzz/") {
					files = append(files, relative)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("collect test files of %s: %w", dir, err)
		}
	}
	return files, nil
}
