package engine

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

func TestSetParamErrors(t *testing.T) {
	coll := &ebpf.CollectionSpec{Variables: map[string]*ebpf.VariableSpec{"threshold": {Name: "threshold", Value: make([]byte, 8)}}}
	err := setParams(coll, []program.Param{
		{Name: "threshold", Variable: "threshold", Type: program.ParamDuration, Value: "soon"},
		{Name: "colour", Variable: "colour", Type: program.ParamUint, Value: "1"},
	})
	mustFail(t, err, program.ErrParamValue, "threshold", `"soon"`, "colour")

	if err := setParams(coll, []program.Param{{Name: "threshold", Variable: "threshold", Type: program.ParamUint, Default: "5"}}); err != nil {
		t.Fatal(err)
	}
	if got := coll.Variables["threshold"].Value; !bytes.Equal(got, binary.NativeEndian.AppendUint64(nil, 5)) {
		t.Errorf("default: %v", got)
	}
}

// A product of 64 bits does not come out small.
func TestWorstCaseIsBounded(t *testing.T) {
	f := func(kind ebpf.MapType, key, value, entries uint32) {
		t.Helper()
		ms := &ebpf.MapSpec{Type: kind, KeySize: key, ValueSize: value, MaxEntries: entries}
		if got := worstCase(ms); got < 1<<40 {
			t.Errorf("%s of %d x (%d + %d): %d bytes", kind, entries, key, value, got)
		}
	}
	const most = 1<<32 - 1
	f(ebpf.Array, 4, most, most)
	f(ebpf.PerCPUArray, 4, most, most)
	f(ebpf.Hash, most, most, most)
	f(ebpf.PerCPUHash, most, 1<<31, most)
	f(ebpf.PerCPUHash, 8, 1<<31, 1<<31)
}
