package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// machine is a made-up machine in a directory.
type machine struct {
	dir   string
	mount strings.Builder
}

func newMachine(t *testing.T, procCgroup string) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir()}
	m.write(t, "proc/self/cgroup", procCgroup)
	m.write(t, "proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"+
		"cpuset\t3\t1\t1\ncpu\t1\t1\t1\nblkio\t7\t1\t1\nmemory\t4\t22\t1\npids\t8\t1\t1\n")
	m.write(t, "proc/self/mountinfo", "")
	return m
}

func (m *machine) write(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// add mounts a hierarchy at a path and makes the given cgroups.
func (m *machine) add(t *testing.T, path, root, fsType, options string, cgroups ...string) {
	t.Helper()
	point := filepath.Join(m.dir, path)
	for _, c := range append(cgroups, "") {
		if err := os.MkdirAll(filepath.Join(point, c), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&m.mount, "31 23 0:28 %s %s rw,nosuid shared:9 - %s %s rw,%s\n", root, strings.ReplaceAll(point, " ", `\040`), fsType, fsType, options)
	m.write(t, "proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"+m.mount.String())
}

func (m *machine) detect(t *testing.T, o DetectOptions) (Layout, error) {
	t.Helper()
	o.Proc = filepath.Join(m.dir, "proc")
	if o.Types == nil {
		o.Types = subsystems(t, "cpuset", "cpu", "cpuacct", "io", "memory", "devices", "freezer", "pids")
	}
	return DetectWithOptions(o)
}

// subsystems makes the types of a kernel with these controllers.
func subsystems(t *testing.T, controllers ...string) *btf.Spec {
	t.Helper()
	enum := &btf.Enum{Name: "cgroup_subsys_id", Size: 4}
	for i, c := range controllers {
		enum.Values = append(enum.Values, btf.EnumValue{Name: c + "_cgrp_id", Value: uint64(i)})
	}
	if len(controllers) == 0 {
		enum.Name = "other"
		enum.Values = []btf.EnumValue{{Name: "x"}}
	}
	b, err := btf.NewBuilder([]btf.Type{enum}, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

const v1Cgroup = "12:pids:/x\n9:memory:/\n8:blkio:/\n4:cpu,cpuacct:/\n2:net_cls,net_prio:/\n1:name=systemd:/init.scope\n0::/\n"

func TestDetectLayouts(t *testing.T) {
	f := func(name string, build func(t *testing.T, m *machine), mode Mode, controller string, number uint16, subsystem uint32) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, v1Cgroup)
			build(t, m)
			l, err := m.detect(t, DetectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if l.Mode != mode || l.V1.Controller != controller || l.V1.Number != number || l.Subsystem != subsystem {
				t.Errorf("got %+v, want mode %v, controller %q (%d), subsystem %d", l, mode, controller, number, subsystem)
			}
			if mode != ModeV1 && !l.V2.Present() || l.Scope != (Scope{}) {
				t.Errorf("got %+v", l)
			}
		})
	}
	f("v2", func(t *testing.T, m *machine) {
		m.add(t, "sys/fs/cgroup", "/", "cgroup2", "nsdelegate", "init.scope", "system.slice")
	}, ModeV2, "", 0, 0)
	f("v1", func(t *testing.T, m *machine) {
		m.add(t, "cg/systemd", "/", "cgroup", "xattr,name=systemd")
		m.add(t, "cg/cpu,cpuacct", "/", "cgroup", "cpu,cpuacct")
		m.add(t, "cg/memory", "/", "cgroup", "memory")
		m.add(t, "cg/pids", "/", "cgroup", "pids")
	}, ModeV1, "pids", 12, 7)
	f("v1 without pids and memory", func(t *testing.T, m *machine) {
		m.add(t, "cg/blkio", "/", "cgroup", "blkio")
		m.add(t, "cg/cpu,cpuacct", "/", "cgroup", "cpu,cpuacct")
	}, ModeV1, "cpu", 4, 1)
	f("v1 with blkio, which is called io in the kernel", func(t *testing.T, m *machine) {
		m.add(t, "cg/blkio", "/", "cgroup", "blkio")
	}, ModeV1, "blkio", 8, 3)
	f("hybrid", func(t *testing.T, m *machine) {
		m.add(t, "cg/memory", "/", "cgroup", "memory")
		m.add(t, "cg/unified", "/", "cgroup2", "nsdelegate")
	}, ModeHybrid, "memory", 9, 4)
	f("systemd's hybrid", func(t *testing.T, m *machine) {
		m.add(t, "cg/pids", "/", "cgroup", "pids")
		m.add(t, "cg/unified", "/", "cgroup2", "nsdelegate", "init.scope")
	}, ModeV1, "pids", 12, 7)
	f("v2 with a tool's net_cls", func(t *testing.T, m *machine) {
		m.add(t, "cg/net_cls", "/", "cgroup", "net_cls,net_prio")
		m.add(t, "cg/blkio", "/", "cgroup", "blkio")
		m.add(t, "sys/fs/cgroup", "/", "cgroup2", "nsdelegate")
	}, ModeV2, "", 0, 0)
}

func TestDetectMounts(t *testing.T) {
	m := newMachine(t, "0::/\n")
	if _, err := m.detect(t, DetectOptions{}); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("without mounts: %v", err)
	}
	m.add(t, "container", "/../../kubepods/pod1", "cgroup2", "")
	m.add(t, "some where", "/", "cgroup2", "")
	l, err := m.detect(t, DetectOptions{})
	if err != nil || l.V2.Mount != filepath.Join(m.dir, "some where") || !l.V2.Whole {
		t.Errorf("the mount that shows everything: %+v, %v", l, err)
	}
	l, err = m.detect(t, DetectOptions{Root: filepath.Join(m.dir, "container")})
	if err != nil || l.V2.Mount != filepath.Join(m.dir, "container") || l.V2.Whole || l.V2.Base != "" {
		t.Errorf("with Root: %+v, %v", l, err)
	}
	if _, err = m.detect(t, DetectOptions{Root: filepath.Join(m.dir, "contain")}); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("with another Root: %v", err)
	}

	m = newMachine(t, "0::/\n")
	m.add(t, "sub", "/system.slice/x.service", "cgroup2", "", "y")
	l, err = m.detect(t, DetectOptions{CgroupRoot: "/system.slice/x.service/y"})
	if err != nil || l.V2.Whole || l.V2.Base != "/system.slice/x.service" || l.Scope.Level != 3 || l.Scope.Path != "/system.slice/x.service/y" {
		t.Errorf("part of a hierarchy: %+v, %v", l, err)
	}
	c, err := NewCgroupsWithOptions(l, Options{NoEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if path, state := c.Path(l.Scope.ID); path != "/system.slice/x.service/y" || state != Alive {
		t.Errorf("Path = %q, %d", path, state)
	}
}

func TestScope(t *testing.T) {
	m := newMachine(t, v1Cgroup)
	m.add(t, "cg/pids", "/", "cgroup", "pids", "a/b", "only1")
	m.add(t, "cg/memory", "/", "cgroup", "memory", "a/m")
	m.add(t, "cg/unified", "/", "cgroup2", "", "a/b/c", "only2")
	m.write(t, "cg/unified/file", "")
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(m.dir, path), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	f := func(root, path string, mode Mode, number uint16, dir string, level, subsystem uint32) {
		t.Helper()
		l, err := m.detect(t, DetectOptions{CgroupRoot: root})
		if err != nil {
			t.Errorf("%s: %v", root, err)
			return
		}
		want := Scope{Path: path, Level: level, ID: Hierarchy{Number: number}.ID(inode(dir))}
		if l.Scope != want || l.Mode != mode || l.Subsystem != subsystem {
			t.Errorf("%s: got %+v, mode %v, subsystem %d, want %+v, %v, %d", root, l.Scope, l.Mode, l.Subsystem, want, mode, subsystem)
		}
		c := l.Constants()
		if c["kaon_cgroup_mode"] != uint32(mode) || c["kaon_cgroup_subsys"] != subsystem || c["kaon_scope_id"] != uint64(want.ID) || c["kaon_scope_level"] != level {
			t.Errorf("%s: constants %v", root, c)
		}
	}
	f("/a/b", "/a/b", ModeV2, 0, "cg/unified/a/b", 2, 0)
	f("a/b/c/", "/a/b/c", ModeV2, 0, "cg/unified/a/b/c", 3, 0)
	f(m.dir+"/cg/unified/only2", "/only2", ModeV2, 0, "cg/unified/only2", 1, 0)
	f("only1", "/only1", ModeV1, 12, "cg/pids/only1", 1, 7)
	f(m.dir+"/cg/pids/a", "/a", ModeV1, 12, "cg/pids/a", 1, 7)
	f(m.dir+"/cg/memory/a/m", "/a/m", ModeV1, 9, "cg/memory/a/m", 2, 4)

	for _, root := range []string{"/", m.dir + "/cg/unified", m.dir + "/cg/unified/"} {
		if l, err := m.detect(t, DetectOptions{CgroupRoot: root}); err != nil || l.Scope != (Scope{}) || l.Mode != ModeHybrid {
			t.Errorf("%s: %+v, %v", root, l, err)
		}
	}
	for _, root := range []string{"/none", m.dir + "/cg/pids/none", "file", "../../x", m.dir} {
		if l, err := m.detect(t, DetectOptions{CgroupRoot: root}); !errors.Is(err, ErrScope) {
			t.Errorf("%s: %+v, %v", root, l.Scope, err)
		}
	}
	m.add(t, "cg2", "/../x", "cgroup2", "", "a")
	if _, err := m.detect(t, DetectOptions{CgroupRoot: "a", Root: m.dir + "/cg2"}); !errors.Is(err, ErrScope) {
		t.Errorf("unknown depth: %v", err)
	}
}

func TestSubsystemIndexWithoutTypes(t *testing.T) {
	m := newMachine(t, v1Cgroup)
	m.add(t, "cg/pids", "/", "cgroup", "pids")
	l, err := m.detect(t, DetectOptions{Types: subsystems(t)})
	if err != nil || l.Subsystem != 4 {
		t.Errorf("from /proc/cgroups: %d, %v", l.Subsystem, err)
	}
	m.write(t, "proc/cgroups", "#subsys_name\nmemory\t1\n")
	if l, err = m.detect(t, DetectOptions{Types: subsystems(t)}); err == nil {
		t.Errorf("from nowhere: %d", l.Subsystem)
	}
}

// What a cgroup is called in the kernel is its directory's inode: the same number that opening by handle uses.
func TestIDIsKernelID(t *testing.T) {
	_, hs := detect(t)
	for _, h := range hs {
		name := testName(t, 10)
		id := makeCgroup(t, h, name)
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(h.Mount, name), 0)
		if err != nil {
			t.Fatal(err)
		}
		if handle.Size() != 8 {
			t.Fatalf("%s: handle of %d bytes", h.Mount, handle.Size())
		}
		var kernel uint64
		for i, b := range handle.Bytes() {
			kernel |= uint64(b) << (8 * i)
		}
		if h.ID(kernel) != id || id.hierarchy() != h.Number {
			t.Errorf("%s: handle %#x, id %#x", h.Mount, kernel, id)
		}
	}
}

func TestParseMount(t *testing.T) {
	f := func(line string, want string) {
		t.Helper()
		m, ok := parseMount(line)
		got := fmt.Sprintf("%s %s %v %v", m.point, m.root, m.v2, m.options)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	f("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified / true [rw]")
	f(`41 31 0:38 /a\040b /x\134y rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct`, `/x\y /a b false [rw cpu cpuacct]`)
	f("41 31 0:38 / /x rw - tmpfs tmpfs rw", "")
	f("41 31 0:38 / /x rw cgroup2", "")
	f("- cgroup2", "")
	f("", "")
	f("a b c d e f - cgroup", "e d false []")
}

func FuzzParseMount(f *testing.F) {
	f.Add(`41 31 0:38 /a\040b /x\134y rw shared:1 - cgroup cgroup rw,cpu,cpuacct`)
	f.Add(`1 2 3 \ \1 \999 - cgroup2`)
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMount(line); ok && (m.point == "" || m.root == "") {
			t.Errorf("%+v", m)
		}
	})
}
