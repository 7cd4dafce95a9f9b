package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/kaon-project/kaon/internal/program"
)

func TestMain(m *testing.M) {
	// Kernels before 5.11 charge maps to the memlock limit.
	_ = rlimit.RemoveMemlock()
	os.Exit(m.Run())
}

type oneRing struct{ m *ebpf.Map }

func (o oneRing) Map(string) *ebpf.Map { return o.m }

// newRing returns a Set with the ring "events" and a function that sends a record: the bytes given, cut or filled to 16.
func newRing(t *testing.T, recordSize, size uint32) (*Set, func(n uint64)) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: size})
	if err != nil {
		t.Skipf("needs ring buffers: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, 14),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 16),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "end"),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Imm(asm.R3, 16),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	}})
	if err != nil {
		t.Skipf("needs ring buffers in programs: %v", err)
	}
	t.Cleanup(func() { prog.Close() })
	set := NewSet(&program.Spec{Streams: []program.Stream{{Name: "events", RecordSize: recordSize}}}, oneRing{m})
	t.Cleanup(func() { set.Close() })
	return set, func(n uint64) {
		packet := binary.LittleEndian.AppendUint64(make([]byte, 14), n)
		if _, err := prog.Run(&ebpf.RunOptions{Data: append(packet, make([]byte, 8)...)}); err != nil {
			t.Error(err)
		}
	}
}

// Everything that was sent before Sync is handed out, once and in order, when it returns.
func TestSync(t *testing.T) {
	set, send := newRing(t, 16, 1<<16)
	ring, err := set.Ring("events")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := set.Ring("events"); again != ring || err != nil {
		t.Errorf("a second ring: %v", err)
	}
	if _, err := set.Ring("none"); !errors.Is(err, ErrNoStream) {
		t.Errorf("got %v", err)
	}
	var got atomic.Uint64
	ring.Consume(func(record []byte) {
		if n := binary.LittleEndian.Uint64(record); n != got.Add(1) {
			t.Errorf("record %d came as the %dth", n, got.Load())
		}
	})
	for n := range uint64(2000) {
		send(n + 1)
		if n%10 != 0 {
			continue
		}
		var wait sync.WaitGroup
		for range n/10%3 + 1 {
			wait.Go(func() {
				if err := ring.Sync(context.Background()); err != nil {
					t.Error(err)
				}
				if got.Load() != n+1 {
					t.Errorf("%d of %d records were handed out", got.Load(), n+1)
				}
			})
		}
		wait.Wait()
	}
}

// A ring that is never empty, because each record causes another, must not keep a scrape waiting.
func TestSyncOfABusyRing(t *testing.T) {
	set, send := newRing(t, 16, 1<<16)
	ring, err := set.Ring("events")
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var got atomic.Uint64
	ring.Consume(func([]byte) {
		if got.Add(1); !stop.Load() {
			send(0)
		}
	})
	for range 100 {
		send(0)
	}
	defer stop.Store(true)
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := ring.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if got.Load() < 100 {
		t.Errorf("%d records were handed out", got.Load())
	}
}

func TestShortRecords(t *testing.T) {
	set, send := newRing(t, 24, 1<<16)
	ring, err := set.Ring("events")
	if err != nil {
		t.Fatal(err)
	}
	ring.Consume(func([]byte) { t.Error("a record of 16 bytes was taken for one of 24") })
	send(1)
	if err := ring.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := set.Short()["events"]; n != 1 {
		t.Errorf("%d short records", n)
	}
}

func TestCloseWhileWaiting(t *testing.T) {
	for range 20 {
		set, send := newRing(t, 16, 1<<16)
		ring, err := set.Ring("events")
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for {
					if err := ring.Sync(context.Background()); err != nil {
						return
					}
				}
			})
		}
		send(1)
		if err := set.Close(); err != nil {
			t.Error(err)
		}
		wait.Wait()
		if err := ring.Sync(context.Background()); err == nil {
			t.Error("a closed ring can be synced")
		}
		if _, err := set.Ring("events"); !errors.Is(err, ErrClosed) {
			t.Errorf("a ring of a closed set: %v", err)
		}
	}
}
