package bpf

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Two CPUs make the same new keys at the same time: nothing may get lost.
func TestFirstInsertOfTwoCPUs(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) < 2 {
		t.Skip("needs two CPUs")
	}
	const keys, rounds = 512, 200
	collection := load(t, "full.bpf.o", nil, "race", "race_naive")

	count := func(program *ebpf.Program, m *ebpf.Map) (total uint64) {
		var arrived atomic.Int64
		var group sync.WaitGroup
		for i := range 2 {
			group.Go(func() {
				// The thread is thrown away with its affinity.
				runtime.LockOSThread()
				var set unix.CPUSet
				set.Set(cpus[i])
				if err := unix.SchedSetaffinity(0, &set); err != nil {
					t.Error(err)
					return
				}
				for round := range int64(rounds) {
					arrived.Add(1)
					for arrived.Load() < 2*(round+1) && !t.Failed() {
						unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
					}
					if err := runOnce(program, uint64(round)*keys+1); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		var key, value uint64
		entries := m.Iterate()
		for entries.Next(&key, &value) {
			total += value
		}
		if err := entries.Err(); err != nil {
			t.Fatal(err)
		}
		return total
	}
	const want = 2 * keys * rounds
	got := count(collection.Programs["race"], collection.Maps["raced_total"])
	if got != want {
		t.Errorf("counted %d of %d", got, want)
	}
	if n := lost(t, collection); n != 0 {
		t.Errorf("lost %d", n)
	}
	var overflow uint64
	if err := collection.Maps["raced_total"].Lookup(allOnes(8), &overflow); err != nil || overflow != 0 {
		t.Errorf("%d events in the overflow entry of a map with room, %v", overflow, err)
	}
	// How good this test is: what the usual idiom loses in the same race. Not asserted, it depends on the machine.
	naive := count(collection.Programs["race_naive"], collection.Maps["naive_total"])
	t.Logf("kaon.h lost 0, look-up and BPF_ANY lost %d of %d", int64(want)-int64(naive), want)
}
