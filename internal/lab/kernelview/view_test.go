package kernelview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/series"
)

// roleVariable makes the test binary play something else than the test.
const roleVariable = "KAON_TEST_KERNELVIEW_ROLE"

func TestMain(m *testing.M) {
	if inject.IsChild(os.Args[1:]) {
		if err := inject.ChildMain(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "kick": // the same function of the same file, in another process
		fmt.Println(run(1))
	case "status":
		view := Start(context.Background(), Options{})
		<-view.Loaded()
		s := view.Status()
		fmt.Printf("%v %s\n", s.Available, s.Reason)
		if _, err := view.Families(context.Background()); err != nil {
			fmt.Println(err)
		}
		if err := view.Close(); err != nil {
			fmt.Println(err)
		}
	}
}

// run lets a beam circulate so often, each time on a new goroutine, whose small stack has to grow at another place:
// at the entry of the kick function, for some. It returns how often it was kicked.
func run(runs int) uint64 {
	n := uint64(0)
	for depth := range runs {
		kicks := make(chan uint64)
		go func() {
			simulation, err := lab.New(lab.Compatible, 0, func(uint64, lab.Beam) float64 { return 49 })
			if err != nil {
				panic(err)
			}
			simulation.Start()
			descend(depth, func() {
				result, ended := simulation.Advance(time.Hour)
				if !ended {
					panic("the run does not end")
				}
				kicks <- result.Kicks
			})
		}()
		n += <-kicks
	}
	return n
}

// descend calls f with so much more stack in use.
//
//go:noinline
func descend(depth int, f func()) int {
	if depth == 0 {
		f()
		return 0
	}
	return descend(depth-1, f) + 1
}

func start(t *testing.T) *View {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	view := Start(context.Background(), Options{})
	t.Cleanup(func() {
		if err := view.Close(); err != nil {
			t.Error(err)
		}
	})
	<-view.Loaded()
	if s := view.Status(); !s.Available {
		t.Skip("needs eBPF:", s.Reason)
	}
	return view
}

// counted demands that a Program, if it is up, has counted so much, less the runs that the kernel left out.
func counted(t *testing.T, view *View, program, metric string, want uint64, labels ...string) {
	t.Helper()
	if !view.program(t, program).Up {
		return // what is down is looked at elsewhere
	}
	n, missed := value(t, view, metric, labels...), view.program(t, program).Missed
	if n > want || n+missed < want {
		t.Errorf("%s%v is %d, and %d runs were left out, want %d", metric, labels, n, missed, want)
	}
}

// program returns the status of one.
func (v *View) program(t *testing.T, name string) ProgramStatus {
	t.Helper()
	for _, p := range v.Status().Programs {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no program %s: %+v", name, v.Status())
	return ProgramStatus{}
}

// value adds up the first numbers of the series of a metric with these labels, NAME="VALUE".
func value(t *testing.T, view *View, metric string, labels ...string) uint64 {
	t.Helper()
	families, err := view.Families(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, f := range families {
		if f.Metric.Name == metric {
			sum += sumOf(f, labels)
		}
	}
	return sum
}

func sumOf(f *series.Family, labels []string) (sum uint64) {
points:
	for i, p := range f.Points {
		for _, l := range labels {
			if !strings.Contains(","+p.Labels+",", ","+l+",") {
				continue points
			}
		}
		sum += f.Row(i)[0]
	}
	return sum
}

// TestKicksAreCountedExactly: what the kernel counts is what the simulation did, however its stack moves; and what another process that
// runs the same file does is not counted.
func TestKicksAreCountedExactly(t *testing.T) {
	view := start(t)
	p := view.program(t, labProgram)
	if !p.Up {
		t.Skip("needs uprobes:", p.Reason)
	}
	app := uint64(0)
	for range 3 {
		app += run(200)
		counted(t, view, labProgram, "accelerator_kernel_kicks_total", app)
	}
	other := exec.Command("/proc/self/exe")
	other.Env = append(os.Environ(), roleVariable+"=kick")
	other.Stderr = os.Stderr
	out, err := other.Output()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || n == 0 {
		t.Fatalf("the other process kicked %q times", out)
	}
	counted(t, view, labProgram, "accelerator_kernel_kicks_total", app)
	t.Logf("app says %d kicks, kernel says %d", app, value(t, view, "accelerator_kernel_kicks_total"))
}

// TestOnlyTheLabIsSeen: programs of the library count what this process and its injections do, and nothing else.
func TestOnlyTheLabIsSeen(t *testing.T) {
	// Go forks once more before the first that it starts, to find out what the kernel can do.
	if err := exec.Command("/proc/self/exe", "-test.run", "^$").Run(); err != nil {
		t.Fatal(err)
	}
	view := start(t)
	s := view.Status()
	if s.Cgroup == "" || s.Reason != "" {
		t.Skip("needs a cgroup v2 of its own:", s.Reason)
	}
	for _, p := range s.Programs {
		t.Logf("%s: up %v %s", p.Name, p.Up, p.Reason)
		if !p.Up && os.Getenv("KAON_VM") == "" {
			t.Errorf("%s is down: %s", p.Name, p.Reason)
		}
	}
	// One of ours is executed, in the lab's cgroup, and one in an injection's. The machine executes others all the time.
	if err := exec.Command("/proc/self/exe", "-test.run", "^$").Run(); err != nil {
		t.Fatal(err)
	}
	injection, err := inject.Start(context.Background(), inject.Memory, inject.Options{Bytes: 48 << 20, Duration: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer injection.Stop()
	for injection.Status().Bytes != 48<<20 {
		if s := injection.Status(); !s.Running {
			t.Fatal(s.Err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	counted(t, view, "exec", "process_starts_total", 1, `cgroup="lab"`)
	counted(t, view, "exec", "process_starts_total", 1, `cgroup="inject-memory"`)
	counted(t, view, "exec", "process_starts_total", 2)
	counted(t, view, "exit", "process_exits_total", 1)
	if p := view.program(t, labProgram); p.Reason == "" {
		if n := value(t, view, "accelerator_kernel_resident_memory_bytes", `cgroup="inject-memory"`); n < 47<<20 || n > 48<<20+256<<20 {
			t.Errorf("the injection has %d bytes, want 48 MiB and what Go needs", n)
		}
		if n := value(t, view, "accelerator_kernel_resident_memory_bytes", `cgroup="lab"`); n == 0 || n > 4<<30 {
			t.Errorf("the lab has %d bytes", n)
		}
	}
	if _, err := os.Stat(filepath.Join(injection.Status().Cgroup, "memory.current")); err == nil {
		if n := value(t, view, "memory_usage_bytes", `cgroup="inject-memory"`); n < 47<<20 || n > 1<<30 {
			t.Errorf("the kernel charges the injection for %d bytes, want 48 MiB and what Go needs", n)
		}
		t.Log("the cgroups have a memory controller")
	}
	if view.program(t, "oncpu").Up && value(t, view, "oncpu_seconds_total", `cgroup="lab"`) == 0 {
		t.Error("the lab used no CPU time")
	}
	for range 1000 {
		getpriority(t)
	}
	counted(t, view, "syscalls", "syscalls_total", 1000, `syscall="getpriority"`)
	for _, f := range families(t, view) {
		for _, p := range f.Points {
			if strings.Contains(p.Labels, "cgroup=") && !strings.Contains(p.Labels, `cgroup="lab"`) && !strings.Contains(p.Labels, `cgroup="inject-memory"`) {
				t.Errorf("%s{%s} is not the lab's", f.Metric.Name, p.Labels)
			}
		}
	}
}

// TestRequestsAreSeen: a scrape is bytes and an accept of the lab.
func TestRequestsAreSeen(t *testing.T) {
	view := start(t)
	if view.Status().Reason != "" {
		t.Skip("needs a cgroup v2 of its own:", view.Status().Reason)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const size = 100_000
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})}
	go server.Serve(listener)
	defer server.Close()
	response, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, response.Body); err != nil || n != size {
		t.Fatalf("%d bytes: %v", n, err)
	}
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if view.program(t, "netbytes").Up {
		if n := value(t, view, "network_bytes_total", `cgroup="lab"`, `direction="transmit"`); n < size {
			t.Errorf("%d bytes were sent, want %d at least", n, size)
		}
	}
	if view.program(t, "syscalls").Up && value(t, view, "syscalls_total", `cgroup="lab"`, `syscall="accept4"`) == 0 {
		t.Error("no connection was accepted")
	}
}

func families(t *testing.T, view *View) []*series.Family {
	t.Helper()
	all, err := view.Families(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWithoutRights: nothing is to be had, and it is said why.
func TestWithoutRights(t *testing.T) {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), roleVariable+"=status")
	asNobody(t, command)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	available, reason, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if available != "false" || len(reason) < 20 || strings.Contains(reason, "\n") {
		t.Errorf("without rights: %q", out)
	}
	t.Log(reason)
}

// TestOneProgramsFailureIsItsOwn: the others run, and Families has theirs.
func TestOneProgramsFailureIsItsOwn(t *testing.T) {
	view := start(t)
	count := len(families(t, view))
	view.add(&unit{name: "broken", err: errors.New("it has no hook")})
	view.add(view.open(context.Background(), fromLibrary(libraryProgram{name: "nosuch"})))
	view.add(view.open(context.Background(), fromLibrary(libraryProgram{name: "exec", params: map[string]string{"nosuch": "1"}})))
	if n := len(families(t, view)); n != count {
		t.Errorf("there are %d families, want %d", n, count)
	}
	s := view.Status()
	if !s.Available || s.Programs[len(s.Programs)-1].Reason == "" || s.Programs[len(s.Programs)-2].Reason == "" {
		t.Errorf("the status is %+v", s)
	}
}
