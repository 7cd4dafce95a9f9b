package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// childVariable makes this binary a child that asks for its workload.
const childVariable = "KAON_TEST_BPF_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := child(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child waits to be moved to its cgroups, runs the program that is its third
// file, sends a packet and connects to itself in its own network namespace, and waits to be let go.
func child() error {
	runtime.LockOSThread()
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	program, err := ebpf.NewProgramFromFD(3)
	if err != nil {
		return err
	}
	if err := runOnce(program); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo([]byte("x"), conn.LocalAddr()); err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	client, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		return err
	}
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	defer client.Close()
	fmt.Println("done")
	_, err = io.Copy(io.Discard, in)
	return err
}

// hierarchy is a mounted cgroup hierarchy and two cgroups of this test in it: test/own and test/other.
type hierarchy struct {
	root, test, own, other string
	// number of the hierarchy: 0 for v2. subsys: the index of the controller.
	number, subsys uint64
}

func (h *hierarchy) id(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino | h.number<<48
}

func (h *hierarchy) makeDirectories(t *testing.T) {
	t.Helper()
	h.test = filepath.Join(h.root, fmt.Sprintf("kaon-test-bpf-%d", os.Getpid()))
	h.own, h.other = filepath.Join(h.test, "own"), filepath.Join(h.test, "other")
	for _, directory := range []string{h.test, h.own, h.other} {
		if err := os.Mkdir(directory, 0o755); err != nil {
			t.Skip("needs writable cgroups: ", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(directory); err != nil {
				t.Error(err)
			}
		})
	}
}

// mounts calls yield with the mount point, file system type and super block options of each mount.
func mounts(t *testing.T, yield func(point, kind, options string)) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(rest) > 2 && fields[3] == "/" {
			yield(fields[4], rest[0], rest[2])
		}
	}
}

func cgroup2(t *testing.T) *hierarchy {
	t.Helper()
	h := &hierarchy{}
	mounts(t, func(point, kind, _ string) {
		if kind == "cgroup2" {
			h.root = point
		}
	})
	if h.root == "" {
		var err error
		if h.root, err = mount(t, "cgroup2", ""); err != nil {
			t.Skip("needs cgroup v2: ", err)
		}
	}
	h.makeDirectories(t)
	return h
}

func cgroup1(t *testing.T) *hierarchy {
	t.Helper()
	// Any controller will do. One that cgroup v2 uses can't be mounted.
	h, controller := &hierarchy{}, ""
	var failed error
	for _, controller = range []string{"pids", "freezer", "net_cls", "cpuacct", "devices"} {
		mounts(t, func(point, kind, options string) {
			if kind == "cgroup" && strings.Contains(","+options+",", ","+controller+",") {
				h.root = point
			}
		})
		if h.root == "" {
			h.root, failed = mount(t, "cgroup", controller)
		}
		if h.root != "" {
			break
		}
	}
	if h.root == "" {
		t.Skip("needs cgroup v1: ", failed)
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var number uint64
		if strings.Contains(line, ":"+controller+":") {
			fmt.Sscanf(line, "%d:", &number)
			h.number = number
		}
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip("needs kernel BTF: ", err)
	}
	var ids *btf.Enum
	if err := kernel.TypeByName("cgroup_subsys_id", &ids); err != nil {
		t.Skip("needs cgroups: ", err)
	}
	for _, v := range ids.Values {
		if v.Name == controller+"_cgrp_id" {
			h.subsys = v.Value
		}
	}
	h.makeDirectories(t)
	return h
}

func mount(t *testing.T, kind, options string) (string, error) {
	t.Helper()
	directory := t.TempDir()
	if err := unix.Mount("none", directory, kind, 0, options); err != nil {
		return "", fmt.Errorf("mount %s %s: %w", kind, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	return directory, nil
}

// answer mirrors struct answer of workload.bpf.c.
type answer struct{ Runs, Workload, InScope uint64 }

type answers struct{ current, probed, iterated, task, packet, socket, connected, accepted, guessed answer }

// ask runs a child in the cgroups whose directories are given and returns what the programs say of it. Programs
// for packets are attached to attach, if that is not empty.
func ask(t *testing.T, set map[string]any, attach string, cgroups ...string) answers {
	t.Helper()
	return askSelecting(t, set, nil, attach, cgroups...)
}

// askSelecting is ask with the ids of selected cgroups.
func askSelecting(t *testing.T, set map[string]any, selected []uint64, attach string, cgroups ...string) answers {
	t.Helper()
	collection := load(t, "workload.bpf.o", set, "ask", "leave", "tasks", "send", "connect", "kaon_sock_create", "kaon_sock_begin")
	for _, id := range selected {
		if err := collection.Maps["kaon_selected"].Put(id, uint64(1)); err != nil {
			t.Fatal(err)
		}
	}

	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), childVariable+"=1")
	command.Stdin, command.Stderr = reader, os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(dup(t, collection.Programs["ask"].FD())), "program")
	defer file.Close()
	command.ExtraFiles = []*os.File{file}
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	reader.Close()
	waited := false
	defer func() {
		writer.Close()
		if !waited {
			command.Wait()
		}
	}()
	for _, cgroup := range cgroups {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, command.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := collection.Variables["target"].Set(uint32(command.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	namespace, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", command.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := collection.Variables["target_netns"].Set(uint32(namespace.Sys().(*syscall.Stat_t).Ino)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kaon_sock_begin", "connect"} {
		l, err := link.AttachTracing(link.TracingOptions{Program: collection.Programs[name]})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	leave, err := link.AttachTracing(link.TracingOptions{Program: collection.Programs["leave"]})
	if err != nil {
		t.Fatal(err)
	}
	defer leave.Close()
	if attach != "" {
		for name, kind := range map[string]ebpf.AttachType{"send": ebpf.AttachCGroupInetEgress, "kaon_sock_create": ebpf.AttachCGroupInetSockCreate} {
			l, err := link.AttachCgroup(link.CgroupOptions{Path: attach, Attach: kind, Program: collection.Programs[name]})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
	}
	fmt.Fprintln(writer, "go")
	if line, _ := bufio.NewReader(output).ReadString('\n'); line != "done\n" {
		if strings.Contains(line, ebpf.ErrNotSupported.Error()) {
			t.Skip("needs PROG_TEST_RUN of raw_tp programs")
		}
		t.Fatalf("the child says %q", line)
	}
	iterator, err := link.AttachIter(link.IterOptions{Program: collection.Programs["tasks"]})
	if err != nil {
		t.Fatal(err)
	}
	defer iterator.Close()
	tasks, err := iterator.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer tasks.Close()
	if _, err := io.Copy(io.Discard, tasks); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	waited = true

	var a answers
	for name, to := range map[string]*answer{"current": &a.current, "probed": &a.probed, "iterated": &a.iterated,
		"task": &a.task, "packet": &a.packet, "socket": &a.socket,
		"connected": &a.connected, "accepted": &a.accepted, "guessed": &a.guessed} {
		if err := collection.Variables[name].Get(to); err != nil {
			t.Fatal(err)
		}
		if to.Runs == 0 && (attach != "" || name != "packet" && name != "socket") {
			t.Errorf("%s: the program did not run", name)
		}
		to.Runs = 0
	}
	return a
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func constants(mode uint32, h *hierarchy, scope uint64, level uint32) map[string]any {
	return map[string]any{"kaon_cgroup_mode": mode, "kaon_cgroup_subsys": uint32(h.subsys),
		"kaon_scope_id": scope, "kaon_scope_level": level}
}

// everywhere is what is expected if all ways to ask give the same answer.
func everywhere(workload, inScope uint64) answers {
	a := answer{Workload: workload, InScope: inScope}
	return answers{a, a, a, a, a, a, a, a, a}
}

func TestWorkloadAndScopeOfCgroup2(t *testing.T) {
	h := cgroup2(t)
	own := h.id(t, h.own)
	f := func(name string, scope uint64, level uint32, inScope uint64) {
		t.Run(name, func(t *testing.T) {
			if got, want := ask(t, constants(0, h, scope, level), h.own, h.own), everywhere(own, inScope); got != want {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
		})
	}
	f("everything", 0, 0, 1)
	f("itself", own, 2, 1)
	f("parent", h.id(t, h.test), 1, 1)
	f("root", h.id(t, h.root), 0, 1)
	f("sibling", h.id(t, h.other), 2, 0)
	f("child", own+1000, 3, 0)
}

// needSocketStorage skips where sockets can't remember anything: newer kernels allocate that by cmpxchg16b only, which
// an emulated processor may lack.
func needSocketStorage(t *testing.T) {
	t.Helper()
	sockets, err := ebpf.NewMap(specOf(t, "workload.bpf.o").Maps["kaon_sockets"])
	if err != nil {
		t.Skip("needs socket storage: ", err)
	}
	defer sockets.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := sockets.Put(uint32(fd), make([]byte, 16)); errors.Is(err, unix.ENOMEM) {
		t.Skip("needs socket storage: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// needTracedStorage skips where tracing functions can't ask sockets for what they remember: the kernel that brought that
// brought this helper.
func needTracedStorage(t *testing.T) {
	t.Helper()
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip("needs kernel BTF: ", err)
	}
	var helpers *btf.Enum
	if err := kernel.TypeByName("bpf_func_id", &helpers); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_get_current_task_btf" }) {
		t.Skip("needs tracing functions that can ask sockets for what they remember")
	}
}

func TestWorkloadAndScopeOfCgroup1(t *testing.T) {
	v1, v2 := cgroup1(t), cgroup2(t)
	own := v1.id(t, v1.own)
	if own>>48 == 0 {
		t.Fatalf("the id %#x has no hierarchy", own)
	}
	f := func(name string, scope uint64, level uint32, inScope uint64) {
		t.Run(name, func(t *testing.T) {
			want := everywhere(own, inScope)
			// A packet alone does not know; its socket does.
			want.packet.Workload = 0
			if scope != 0 {
				want.packet.InScope = 0
			}
			want.guessed = want.packet
			got := ask(t, constants(1, v1, scope, level), v2.own, v1.own, v2.own)
			socket, remembered := want.socket, got
			want.socket, want.connected, want.accepted = got.socket, got.connected, got.accepted
			if got != want {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
			t.Run("socket", func(t *testing.T) {
				needSocketStorage(t)
				if got := remembered.socket; got != socket {
					t.Errorf("got %+v, want %+v", got, socket)
				}
			})
			t.Run("connection", func(t *testing.T) {
				needSocketStorage(t)
				needTracedStorage(t)
				if remembered.connected != socket || remembered.accepted != socket {
					t.Errorf("got %+v and %+v, want %+v", remembered.connected, remembered.accepted, socket)
				}
			})
		})
	}
	f("everything", 0, 0, 1)
	f("itself", own, 2, 1)
	f("parent", v1.id(t, v1.test), 1, 1)
	f("root", v1.id(t, v1.root), 0, 1)
	f("sibling", v1.id(t, v1.other), 2, 0)
	f("child", own+1000, 3, 0)
	// The same number in another hierarchy is another cgroup.
	f("other hierarchy", own&(1<<48-1)|(v1.number+1)<<48, 2, 0)
}

func TestWorkloadOfHybrid(t *testing.T) {
	v1, v2 := cgroup1(t), cgroup2(t)
	t.Run("in v2", func(t *testing.T) {
		want := everywhere(v2.id(t, v2.own), 1)
		if got := ask(t, constants(2, v1, 0, 0), v2.own, v1.own, v2.own); got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
	t.Run("in the root of v2", func(t *testing.T) {
		// Nothing is attached for packets: that would be to the root.
		want := everywhere(v1.id(t, v1.own), 1)
		want.packet, want.socket = answer{}, answer{}
		want.guessed = answer{Workload: 1, InScope: 1}
		got := ask(t, constants(2, v1, 0, 0), "", v1.own, v2.root)
		needTracedStorage(t)
		needSocketStorage(t)
		if got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
}

// TestEveryHookLoads loads the helpers in every type of function that they are for, in every mode.
func TestEveryHookLoads(t *testing.T) {
	for mode := range uint32(3) {
		for n, scope := range []uint64{0, 1, 5<<48 | 1, 0, 1, 5<<48 | 1} {
			selecting := uint32(n / 3)
			spec := specOf(t, "workload.bpf.o")
			for name, value := range map[string]any{"kaon_selecting": selecting, "kaon_cgroup_mode": mode, "kaon_cgroup_subsys": uint32(3), "kaon_scope_id": scope, "kaon_scope_level": uint32(4)} {
				if err := spec.Variables[name].Set(value); err != nil {
					t.Fatal(err)
				}
			}
			collection, err := ebpf.NewCollection(spec)
			if err != nil {
				var verifier *ebpf.VerifierError
				if errors.As(err, &verifier) {
					t.Errorf("mode %d, scope %#x, selecting %d: %+v", mode, scope, selecting, verifier)
				} else {
					t.Errorf("mode %d, scope %#x, selecting %d: %v", mode, scope, selecting, err)
				}
				continue
			}
			collection.Close()
		}
	}
}

// TestScopeCostsNothing: without a scope and a selection the verifier removes the tests.
func TestScopeCostsNothing(t *testing.T) {
	size := func(scope uint64, selecting uint32) int {
		set := constants(0, &hierarchy{}, scope, 1)
		set["kaon_selecting"] = selecting
		collection := load(t, "workload.bpf.o", set, "asked", "unasked")
		var sizes [2]int
		for i, name := range []string{"asked", "unasked"} {
			info, err := collection.Programs[name].Info()
			if err != nil {
				t.Fatal(err)
			}
			left, err := info.Instructions()
			if err != nil {
				t.Skip("needs a kernel that tells what is left of a function: ", err)
			}
			sizes[i] = len(left)
			for _, ins := range left {
				if name == "asked" && scope == 0 && selecting == 0 && (ins.IsBuiltinCall() || ins.IsLoadFromMap() && ins.Src == asm.PseudoMapFD) {
					t.Errorf("without a scope there is %v", ins)
				}
			}
		}
		return sizes[0] - sizes[1]
	}
	// What stays are two loads of constants, of three instructions each.
	if left := size(0, 0); left > 6 {
		t.Errorf("%d instructions are left without a scope", left)
	}
	if scoped, selecting := size(1, 0), size(0, 1); scoped <= 6 || selecting <= 6 {
		t.Errorf("%d instructions with a scope, %d with a selection", scoped, selecting)
	}
}

// TestSelection: of everything below the scope only the workloads in the map are measured.
func TestSelection(t *testing.T) {
	v2 := cgroup2(t)
	f := func(name string, h *hierarchy, mode uint32, member uint64, scope string, inScope uint64) {
		t.Run(name, func(t *testing.T) {
			var id uint64
			var level uint32
			if scope != "" {
				id, level = h.id(t, scope), uint32(1)
				if scope != h.test {
					level = 2
				}
			}
			set := constants(mode, h, id, level)
			set["kaon_selecting"] = uint32(1)
			cgroups := []string{v2.own}
			if h != v2 {
				cgroups = []string{h.own, v2.own}
			}
			want := everywhere(h.id(t, h.own), inScope)
			got := askSelecting(t, set, []uint64{member}, v2.own, cgroups...)
			if mode == 1 {
				// What sockets remember is tested elsewhere; a packet alone does not know.
				want.packet, want.guessed = answer{}, answer{}
				got.socket, got.connected, got.accepted = want.socket, want.connected, want.accepted
			}
			if got != want {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
		})
	}
	own, other := v2.id(t, v2.own), v2.id(t, v2.other)
	f("selected", v2, 0, own, "", 1)
	f("not selected", v2, 0, other, "", 0)
	f("selected in scope", v2, 0, own, v2.test, 1)
	f("selected out of scope", v2, 0, own, v2.other, 0)
	v1 := cgroup1(t)
	f("selected in v1", v1, 1, v1.id(t, v1.own), "", 1)
	f("not selected in v1", v1, 1, v1.id(t, v1.other), "", 0)
	// The same number in another hierarchy is another cgroup.
	f("another hierarchy", v1, 1, v1.id(t, v1.own)&(1<<48-1), "", 0)
}
