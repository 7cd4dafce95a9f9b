package engine

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// slotSize is a cache line, so that CPUs do not disturb each other.
const slotSize = 64

// runCounter counts how often each function of an instance ran: one slot for each
// CPU and function in an array that is mapped into this process, so reading is free.
type runCounter struct {
	m      *ebpf.Map
	memory []byte
	// slots per function, a power of two, at least the number of CPUs.
	slots int
}

func newRunCounter(functions int) (*runCounter, error) {
	c := &runCounter{slots: 1 << bits.Len(uint(possibleCPUs()-1))}
	size := functions * c.slots * slotSize
	var err error
	c.m, err = ebpf.NewMap(runCounterSpec(size))
	if err != nil {
		return nil, fmt.Errorf("create the map that counts runs: %w", err)
	}
	if err := c.mapMemory(); err != nil {
		c.m.Close()
		return nil, err
	}
	return c, nil
}

// adoptRunCounter takes over a pinned map if it is for as many functions.
func adoptRunCounter(m *ebpf.Map, functions int) (*runCounter, error) {
	c := &runCounter{m: m, slots: 1 << bits.Len(uint(possibleCPUs()-1))}
	if err := runCounterSpec(functions * c.slots * slotSize).Compatible(m); err != nil {
		return nil, err
	}
	return c, c.mapMemory()
}

func runCounterSpec(size int) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "kaon_runs", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1,
		Flags: unix.BPF_F_MMAPABLE,
	}
}

func (c *runCounter) mapMemory() error {
	page := unix.Getpagesize()
	length := (int(c.m.ValueSize()) + page - 1) / page * page
	memory, err := unix.Mmap(c.m.FD(), 0, length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the run counters into memory: %w", err)
	}
	c.memory = memory
	return nil
}

// runs returns how often the function with this index ran.
func (c *runCounter) runs(index int) uint64 {
	var sum uint64
	for slot := range c.slots {
		offset := (index*c.slots + slot) * slotSize
		if offset+8 > len(c.memory) {
			break
		}
		sum += atomic.LoadUint64((*uint64)(unsafe.Pointer(&c.memory[offset])))
	}
	return sum
}

func (c *runCounter) close() {
	if c == nil {
		return
	}
	if c.memory != nil {
		_ = unix.Munmap(c.memory)
		c.memory = nil
	}
	c.m.Close()
}

// countable says whether runs of this kind of function are counted: an iterator's side effects
// happen more often than its records appear, and a syscall function is run by hand.
func countable(kind program.HookKind) bool {
	return kind != program.Iterator && kind != program.Syscall && kind != program.Unattached
}

// countRuns returns the instructions with a prologue that counts each run of the
// function with this index. Two forms exist because not every type of function
// may ask for its CPU on old kernels: then all CPUs share the first slot.
func (c *runCounter) countRuns(insns asm.Instructions, index int, perCPU bool) (asm.Instructions, bool) {
	if len(insns) == 0 {
		return nil, false
	}
	first := insns[0]
	for i := range insns {
		// A jump to the function's own symbol would run the prologue again.
		if !insns[i].IsFunctionReference() && insns[i].Reference() != "" && insns[i].Reference() == first.Symbol() {
			return nil, false
		}
	}
	offset := uint32(index * c.slots * slotSize)
	var prologue asm.Instructions
	if perCPU {
		prologue = asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.FnGetSmpProcessorId.Call(),
			asm.And.Imm(asm.R0, int32(c.slots-1)),
			asm.LSh.Imm(asm.R0, int32(bits.TrailingZeros(slotSize))),
			asm.LoadMapValue(asm.R1, c.m.FD(), offset),
			asm.Add.Reg(asm.R1, asm.R0),
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.Add.Imm(asm.R2, 1),
			asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R6),
		}
	} else {
		prologue = asm.Instructions{
			asm.LoadMapValue(asm.R6, c.m.FD(), offset),
			asm.Mov.Imm(asm.R7, 1),
			asm.StoreXAdd(asm.R6, asm.R7, asm.DWord),
		}
	}
	// The function begins at the prologue now: its symbol, type and line go there.
	prologue[0] = btf.WithFuncMetadata(prologue[0].WithSymbol(first.Symbol()), btf.FuncMetadata(&first))
	if source := first.Source(); source != nil {
		prologue[0] = prologue[0].WithSource(source)
	}
	body := make(asm.Instructions, 0, len(prologue)+len(insns))
	body = append(body, prologue...)
	body = append(body, insns...)
	moved := &body[len(prologue)]
	*moved = btf.WithFuncMetadata(moved.WithSymbol(""), nil)
	return body, true
}
