package series

import (
	"fmt"
	"io"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// newElementIterator lists a map's elements (keys of 4, values of 8 bytes) as records.
func newElementIterator(t testing.TB, m *ebpf.Map) *link.Iter {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map_elem", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R7, asm.R6, 16, asm.DWord), // ctx->key
			asm.LoadMem(asm.R8, asm.R6, 24, asm.DWord), // ctx->value
			asm.JEq.Imm(asm.R7, 0, "end"),
			asm.JEq.Imm(asm.R8, 0, "end"),
			asm.LoadMem(asm.R1, asm.R7, 0, asm.Word),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R8, 0, asm.Word),
			asm.StoreMem(asm.RFP, -12, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R8, 4, asm.Word),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord), // ctx->meta
			asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // meta->seq
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -16),
			asm.Mov.Imm(asm.R3, 12),
			asm.FnSeqWrite.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		}})
	if err != nil {
		t.Skipf("needs iterators over maps' elements: %v", err)
	}
	defer prog.Close()
	it, err := link.AttachIter(link.IterOptions{Program: prog, Map: m})
	if err != nil {
		t.Skipf("needs iterators over maps' elements: %v", err)
	}
	t.Cleanup(func() { it.Close() })
	return it
}

// More records than the kernel hands out at once, of a size that does not divide its buffer.
func TestIteratorOfTheKernel(t *testing.T) {
	n := uint32(scaled(30_000))
	m := newMap(t, hashSpec(4, 8, n))
	it := newElementIterator(t, m)
	spec := iteratorSpec(program.Metric{Limit: int(n)})
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": it.Open}}
	c, err := NewCollector(spec, source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{}
	for i := range n {
		if err := m.Put(i, uint64(i)<<32|5); err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf(`a="%d"`, i)] = uint64(i)<<32 | 5
	}
	f := &fixture{t: t, collector: c}
	values(t, f.collect(), want)
	values(t, f.collect(), want)
}
