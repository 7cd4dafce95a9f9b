package object

import (
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/kaon-project/kaon/internal/program"
)

func TestSimplify(t *testing.T) {
	data, err := os.ReadFile("../ebpfexporter/testdata/libbpf.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	before := string(data)
	_, typed, _ := simplify(data)
	if string(data) != before {
		t.Error("the object itself was changed")
	}
	if weak, is := typed["kaon_no_such_variable"]; len(typed) != 1 || !is || !weak {
		t.Errorf("variables of the kernel: %v", typed)
	}
	spec, err := ParseCode(data, "libbpf.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, ins := range spec.Collection.Programs["on_probe"].Instructions {
		if ins.OpCode == asm.LoadImmOp(asm.DWord) && ins.Src == program.KernelVariable {
			found++
			if ins.Reference() != "kaon_no_such_variable" || ins.Constant != program.WeakVariable {
				t.Errorf("%v of %s", ins, ins.Reference())
			}
		}
	}
	var config []string
	for _, v := range spec.KernelConfig {
		config = append(config, v.Name)
		if v.Weak {
			t.Errorf("%s is weak", v.Name)
		}
	}
	slices.Sort(config)
	if want := []string{"LINUX_HAS_BPF_COOKIE", "LINUX_HAS_SYSCALL_WRAPPER", "LINUX_KERNEL_VERSION"}; !slices.Equal(config, want) {
		t.Errorf("variables of the kernel's configuration: %v", config)
	}
	if found != 1 {
		t.Errorf("%d loads of a variable of the kernel, want 1", found)
	}
}

// What is damaged must not be ours to die of: it is the reader's to refuse.
func FuzzSimplify(f *testing.F) {
	for _, name := range []string{"../ebpfexporter/testdata/libbpf.bpf.o", "testdata/everything.bpf.o"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, _, _ := simplify(data)
		if len(out) != len(data) {
			t.Errorf("%d bytes of %d", len(out), len(data))
		}
	})
}
