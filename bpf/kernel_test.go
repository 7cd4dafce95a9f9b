package bpf

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// load loads an object of testdata the way the engine does: without the maps
// that only declare types, with overflow entries in those that have them.
// Programs can be limited to those that are named.
func load(t testing.TB, object string, set map[string]any, programs ...string) *ebpf.Collection {
	t.Helper()
	spec := specOf(t, object)
	for name, value := range set {
		variable := spec.Variables[name]
		if variable == nil {
			t.Fatalf("%s has no variable %s", object, name)
		}
		if err := variable.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	if len(programs) > 0 {
		wanted := map[string]*ebpf.ProgramSpec{}
		for _, name := range programs {
			wanted[name] = spec.Programs[name]
		}
		spec.Programs = wanted
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			t.Fatalf("load %s: %+v", object, verifier)
		}
		if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		t.Fatalf("load %s: %v", object, err)
	}
	t.Cleanup(collection.Close)
	return collection
}

// canIterate tells whether the kernel lets a program iterate over something: some refuse it for the elements of maps.
func canIterate(over string) bool {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: over,
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return false
	}
	_ = program.Close()
	return true
}

// specOf reads an object without the iterators that this kernel refuses.
func specOf(t testing.TB, object string) *ebpf.CollectionSpec {
	t.Helper()
	// Kernels before 5.11 account maps to the memlock limit.
	if err := rlimit.RemoveMemlock(); err != nil && os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	spec, err := ebpf.LoadCollectionSpec(filepath.Join("testdata", object))
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range spec.Programs {
		if program.AttachType == ebpf.AttachTraceIter && !canIterate(program.AttachTo) {
			delete(spec.Programs, name)
		}
	}
	for name, m := range spec.Maps {
		for _, tag := range m.Tags {
			switch {
			case tag == "kaon:overflow":
				m.Contents = append(m.Contents, ebpf.MapKV{Key: allOnes(int(m.KeySize)), Value: zero(t, m)})
			case len(tag) > 14 && tag[:14] == "kaon:iterator=":
				delete(spec.Maps, name)
			}
		}
	}
	return spec
}

func allOnes(size int) []byte {
	key := make([]byte, size)
	for i := range key {
		key[i] = 0xff
	}
	return key
}

// zero is the value of a new entry.
func zero(t testing.TB, m *ebpf.MapSpec) any {
	if m.Type != ebpf.PerCPUHash {
		return make([]byte, m.ValueSize)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]byte, cpus)
	for i := range values {
		values[i] = make([]byte, m.ValueSize)
	}
	return values
}

// run runs a raw_tp program once with these arguments.
func run(t testing.TB, program *ebpf.Program, arguments ...uint64) {
	t.Helper()
	if program == nil {
		t.Fatal("no such program")
	}
	if err := runOnce(program, arguments...); err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) {
			t.Skip("needs PROG_TEST_RUN of raw_tp programs")
		}
		t.Fatal(err)
	}
}

func runOnce(program *ebpf.Program, arguments ...uint64) error {
	context := make([]byte, 8*12)
	for i, a := range arguments {
		binary.NativeEndian.PutUint64(context[8*i:], a)
	}
	_, err := program.Run(&ebpf.RunOptions{Context: context})
	return err
}

// numbers returns a key's value as numbers of 64 bits; those of a per-CPU map are summed.
func numbers(t testing.TB, m *ebpf.Map, key []byte) []uint64 {
	t.Helper()
	var values [][]byte
	var err error
	if m.Type() == ebpf.PerCPUHash || m.Type() == ebpf.PerCPUArray {
		err = m.Lookup(key, &values)
	} else {
		var value []byte
		err = m.Lookup(key, &value)
		values = append(values, value)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]uint64, m.ValueSize()/8)
	for _, value := range values {
		for i := range sums {
			sums[i] += binary.NativeEndian.Uint64(value[8*i:])
		}
	}
	return sums
}

func key64(parts ...uint64) []byte {
	var key []byte
	for _, p := range parts {
		key = binary.NativeEndian.AppendUint64(key, p)
	}
	return key
}

func lost(t testing.TB, collection *ebpf.Collection) uint64 {
	t.Helper()
	var n uint64
	if err := collection.Variables["kaon_lost"].Get(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
