package programs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/engine"
)

func TestBPF(t *testing.T) {
	r := load(t, "bpf", "")
	// Everything that is visible is the machine's: only what is made here is compared.
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kaon_test_five", Type: ebpf.Hash, KeySize: 4, ValueSize: 12, MaxEntries: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for n := range uint32(5) {
		if err := m.Put(n, make([]byte, 12)); err != nil {
			t.Fatal(err)
		}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "kaon_test_prog", Type: ebpf.SocketFilter, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	const runs = 7
	for range runs {
		if _, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
			t.Fatal(err)
		}
	}
	stats.Close()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	programID, _ := info.ID()
	mapInfo, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	mapID, _ := mapInfo.ID()

	families := r.collect()
	ofMap := []string{fmt.Sprint("id=", mapID), "name=kaon_test_five", "type=hash"}
	expect(t, families, "bpf_map_max_entries", 77, ofMap...)
	expect(t, families, "bpf_map_entry_bytes", 16, ofMap...)
	if points := pick(families["bpf_map_entries"], ofMap...); r.unavailable("each_map_fill") {
		t.Log("needs Linux 6.6 to count entries")
	} else if len(points) != 1 || points[0].row[0] != 5 {
		t.Errorf("five entries: %v", points)
	}
	ofProgram := []string{fmt.Sprint("id=", programID), "name=kaon_test_prog", "type=socket_filter"}
	if memory := pick(families["bpf_program_memory_bytes"], ofProgram...); len(memory) != 1 || memory[0].row[0] < 4096 {
		t.Errorf("memory: %v", memory)
	}
	if r.unavailable("each_program_run") {
		t.Log("needs Linux 5.19 to read run times")
		return
	}
	kernel, err := prog.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if kernel.RunCount != runs {
		t.Errorf("the kernel counted %d runs", kernel.RunCount)
	}
	expect(t, families, "bpf_program_runs_total", kernel.RunCount, ofProgram...)
	expect(t, families, "bpf_program_run_seconds_total", uint64(kernel.Runtime), ofProgram...)

	// What is gone is gone.
	prog.Close()
	m.Close()
	families = r.collect()
	expect(t, families, "bpf_program_runs_total", 0, ofProgram...)
	expect(t, families, "bpf_map_max_entries", 0, ofMap...)
}

// unavailable says that the kernel lacks what an optional function needs. Any other failure is the test's.
func (r *running) unavailable(function string) bool {
	r.t.Helper()
	for _, h := range r.instance.Hooks() {
		if h.Function != function {
			continue
		}
		if h.State != engine.Failed {
			return false
		}
		var refused *ebpf.VerifierError
		if !h.Optional || (!errors.As(h.Err, &refused) && !errors.Is(h.Err, engine.ErrUnsupported)) {
			r.t.Fatalf("%s: %v", function, h.Err)
		}
		r.t.Log(h.Err)
		return true
	}
	r.t.Fatalf("there is no function %s", function)
	return false
}
