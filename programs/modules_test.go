package programs_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// askForModule has the kernel look for a module that does not exist, six times.
func askForModule() {
	dir := os.Getenv("MOUNT_DIR")
	for range 6 {
		if err := unix.Mount("none", dir, "kaon-no-such", 0, ""); !errors.Is(err, unix.ENODEV) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(101)
		}
	}
}

// reloadModule unloads and loads the module MODULE, three times.
func reloadModule() {
	path := os.Getenv("MODULE")
	name, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ".")
	file, err := os.Open(path)
	if err != nil {
		os.Exit(101)
	}
	for range 3 {
		if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
			fmt.Fprintln(os.Stderr, "unload:", err)
			os.Exit(102)
		}
		if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(103)
		}
	}
}

func TestModules(t *testing.T) {
	kernel, err := types().Kernel()
	if err != nil {
		t.Skip("needs the kernel's BTF:", err)
	}
	if _, err := kernel.AnyTypesByName("btf_trace_module_load"); errors.Is(err, btf.ErrNotFound) {
		t.Skip("needs a kernel with loadable modules")
	}
	group, outside := newCgroup(t), newCgroup(t)
	f := func(requested string, params ...string) {
		t.Helper()
		r := load(t, "modules", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "modprobe", "MOUNT_DIR="+t.TempDir()).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missed("module_request")
		cgroup := "cgroup=" + group.path
		expectUpTo(t, families, "module_requests_total", 6, missed, cgroup, "module="+requested)
		expectUpTo(t, families, "module_requests_total", 6, missed)
		expect(t, families, "module_loads_total", 0)

		// Only a guest's modules are ours to unload.
		const module = "/modules/cls_bpf.ko"
		if _, err := os.Stat(module); os.Getenv("KAON_VM") == "" || err != nil {
			t.Log("needs a module that may be unloaded")
			return
		}
		if status := group.start(t, "reload", "MODULE="+module).wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
		families = r.collect()
		missed = r.missedAll()
		expectUpTo(t, families, "module_loads_total", 3, missed, cgroup, "module=cls_bpf", "taints=")
		expectUpTo(t, families, "module_unloads_total", 3, missed, cgroup, "module=cls_bpf")
		expectUpTo(t, families, "module_loads_total", 3, missed)
	}
	f("")
	f("fs-kaon-no-such", "request_names=true")
}
