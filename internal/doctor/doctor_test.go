package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// probeVariable makes the test binary probe and print JSON: with other privileges than the tests have.
const probeVariable = "KAON_TEST_PROBE"

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(probeVariable); ok {
		var options Options
		if err := json.Unmarshal([]byte(text), &options); err != nil {
			panic(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(Probe(context.Background(), options)); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 || len(newHost("").caps.lacking([]Capability{BPF, Perfmon, NetAdmin, SysAdmin})) > 0 {
		t.Skip("needs root")
	}
}

// probeAs runs Probe in a process of user 65534 with these ambient capabilities, in a network namespace of its own.
func probeAs(t *testing.T, binary string, options Options, caps ...Capability) *Report {
	t.Helper()
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	ambient := make([]uintptr, 0, len(caps))
	for _, c := range caps {
		ambient = append(ambient, uintptr(c))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Dir = "/"
	cmd.Env = []string{probeVariable + "=" + string(text)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: ambient,
		Cloneflags:  unix.CLONE_NEWNET,
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("probe as 65534 with %v: %v", caps, err)
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return &r
}

// reachableBinary copies the test binary to where another user can execute it.
func reachableBinary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kaon-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	path := filepath.Join(dir, "doctor.test")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, self); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// testCgroup makes a cgroup v2 that user 65534 may use; "" where there is none.
func testCgroup(t *testing.T) string {
	t.Helper()
	layout, err := workload.Detect()
	if err != nil || !layout.V2.Present() {
		return ""
	}
	dir := filepath.Join(layout.V2.Mount, fmt.Sprintf("kaon-test-doctor-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRequirementsAreTrue verifies the table that the documentation shows: with exactly the
// capabilities it names a hook works as a user without privileges if it works for root, and with each one less it does not.
func TestRequirementsAreTrue(t *testing.T) {
	needsRoot(t)
	binary, cgroup := reachableBinary(t), testCgroup(t)
	options := Options{Cgroup: cgroup, IsolatedNetwork: true}
	root := Probe(context.Background(), Options{})
	reports := map[string]*Report{}
	as := func(caps []Capability) *Report {
		key := fmt.Sprint(caps)
		if reports[key] == nil {
			reports[key] = probeAs(t, binary, options, caps...)
		}
		return reports[key]
	}
	verified := 0
	for _, r := range Requirements() {
		names := []string{string(r.Kind)}
		if r.Kind == program.Cgroup {
			for _, c := range cgroupHooks {
				names = append(names, c.section)
			}
		}
		for _, name := range names {
			if i := root.Item(SectionHooks, name); i == nil || i.State != Yes {
				continue // not on this kernel
			}
			verified++
			caps := r.Capabilities
			paranoid := newHost("").paranoid() > 2 && slices.Contains(perfHooks, r.Kind)
			if paranoid {
				caps = []Capability{SysAdmin}
			}
			if r.Kind == program.Tracepoint { // tracefs is root's
				caps = append(slices.Clone(caps), DACReadSearch)
			}
			if i := as(caps).Item(SectionHooks, name); i.State != Yes || strings.Contains(i.Value, "not attached") && !strings.Contains(root.Item(SectionHooks, name).Value, "not attached") {
				t.Errorf("%s with %v: %s %s %s", name, caps, i.State, i.Error, i.Value)
			}
			for _, without := range caps {
				fewer := slices.DeleteFunc(slices.Clone(caps), func(c Capability) bool { return c == without })
				i := as(fewer).Item(SectionHooks, name)
				if i.State != No {
					t.Errorf("%s with %v only (without %v): %s %s, the table says it is needed", name, fewer, without, i.State, i.Value)
				}
				if without != DACReadSearch && !paranoid && !strings.Contains(i.Remedy, "needs "+without.String()) {
					t.Errorf("%s without %v: the remedy is %q", name, without, i.Remedy)
				}
			}
		}
	}
	if verified == 0 {
		t.Error("no kind of hook was verified")
	}
	t.Logf("%d hooks verified with %d sets of capabilities", verified, len(reports))
}

// perfHooks are attached by perf events, which kernel.perf_event_paranoid restricts.
var perfHooks = []program.HookKind{program.Tracepoint, program.Kprobe, program.Kretprobe, program.Ksyscall, program.Kretsyscall, program.PerfEvent}

// TestProbe shows with -v what this machine can do.
func TestProbe(t *testing.T) {
	r := Probe(context.Background(), Options{})
	for _, s := range r.Sections {
		if len(s.Items) == 0 {
			t.Errorf("%s is empty", s.Name)
		}
		for _, i := range s.Items {
			if i.State != Yes && (i.Error == "" && i.Value == "" || i.Cost == "" && i.State == No || i.Remedy == "" && i.State == No) {
				t.Errorf("%s says too little: %+v", s.Name, i)
			}
		}
	}
	for _, requirement := range Requirements() {
		if r.Item(SectionHooks, string(requirement.Kind)) == nil {
			t.Errorf("%s was not probed", requirement.Kind)
		}
	}
	var b strings.Builder
	if err := r.Text(&b, true); err != nil {
		t.Fatal(err)
	}
	t.Log(b.String())
}

func TestWithoutPrivileges(t *testing.T) {
	needsRoot(t)
	r := probeAs(t, reachableBinary(t), Options{})
	for _, kind := range []program.HookKind{program.RawTracepoint, program.TracepointBTF, program.Iterator, program.XDP, program.Cgroup, program.UprobeMulti} {
		i := r.Hook(kind, "")
		if i.State != No || !strings.HasPrefix(i.Remedy, "needs CAP_BPF") {
			t.Errorf("%s: %s, %q, %q", kind, i.State, i.Error, i.Remedy)
		}
	}
	if i := r.Item(SectionMaps, "Hash"); i.State == Yes {
		t.Logf("unprivileged BPF is allowed here")
	} else if !strings.HasPrefix(i.Remedy, "needs CAP_BPF") {
		t.Errorf("hash map: %+v", i)
	}
	var b strings.Builder
	r.Programs = r.Assess([]*program.Spec{{Name: "exec", Hooks: []program.Hook{{Function: "f", Kind: program.RawTracepoint, Target: "sched_process_exec"}}}})
	if err := r.Text(&b, false); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "exec           does not work") || !strings.Contains(text, "needs CAP_BPF and CAP_PERFMON") {
		t.Error(text)
	}
}

// descriptors lists what this process has open, by what it is.
func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(to, "/proc/") {
			list = append(list, e.Name()+" "+to)
		}
	}
	return list
}

func TestNothingIsLeftBehind(t *testing.T) {
	needsRoot(t)
	Probe(context.Background(), Options{}) // whatever the libraries open once
	before := descriptors(t)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	Probe(context.Background(), Options{})
	if after := descriptors(t); !slices.Equal(before, after) {
		t.Errorf("descriptors before: %q\nafter: %q", before, after)
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); string(now) != string(mounts) {
		t.Errorf("mounts before:\n%s\nafter:\n%s", mounts, now)
	}
	layout, err := workload.Detect()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{layout.V2.Mount, filepath.Join(layout.V2.Mount, ownCgroup(string(own)))} {
		if left := filepath.Join(dir, fmt.Sprintf("kaon-doctor-%d", os.Getpid())); layout.V2.Present() {
			if _, err := os.Stat(left); err == nil {
				t.Errorf("cgroup left: %q", left)
			}
		}
	}
	// Programs and the threads' namespaces go asynchronously.
	left := ""
	for range 100 {
		if left = probePrograms(t); left == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if left != "" {
		t.Error(left)
	}
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, path := range threads {
		for range 100 { // a thread that is ending still shows
			if to, err := os.Readlink(path); err != nil || to == network {
				left = ""
				break
			}
			left = path
			time.Sleep(20 * time.Millisecond)
		}
		if left != "" {
			t.Errorf("%s is a namespace that should be gone", left)
		}
	}
}

// probePrograms says which programs and links of the doctor the kernel still has.
func probePrograms(t *testing.T) string {
	t.Helper()
	left, ours := "", map[ebpf.ProgramID]bool{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		if info, err := p.Info(); err == nil && info.Name == "kaon_doctor" {
			left += fmt.Sprintf("program %d is left; ", id)
			ours[id] = true
		}
		_ = p.Close()
	}
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		if info, err := links.Link.Info(); err == nil && ours[info.Program] {
			left += fmt.Sprintf("link %d is left; ", info.ID)
		}
	}
	return left
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := Probe(ctx, Options{})
	for _, requirement := range Requirements() {
		if i := r.Hook(requirement.Kind, ""); i.State == Yes || i.Error == "" && i.State != No {
			t.Errorf("%s: %+v", requirement.Kind, i)
		}
	}
}
