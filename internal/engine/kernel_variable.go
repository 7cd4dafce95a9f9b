package engine

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// resolveKernelVariables tells loads of variables of the kernel which they mean.
func (e *Engine) resolveKernelVariables(insns asm.Instructions) error {
	for i := range insns {
		ins := &insns[i]
		if ins.OpCode != asm.LoadImmOp(asm.DWord) || ins.Src != program.KernelVariable || ins.Reference() == "" {
			continue
		}
		types, err := e.kernelTypes().Kernel()
		if err != nil {
			return fmt.Errorf("look for the kernel's variable %s: %w", ins.Reference(), err)
		}
		var variable *btf.Var
		err = types.TypeByName(ins.Reference(), &variable)
		switch {
		case errors.Is(err, btf.ErrNotFound) && ins.Constant == program.WeakVariable:
			ins.Src, ins.Constant = asm.R0, 0
			continue
		case errors.Is(err, btf.ErrNotFound):
			return fmt.Errorf("%w: the kernel's types have no variable %s: only those of each CPU are there; declare it `extern const void %s __ksym`, or __weak",
				ErrNoSymbol, ins.Reference(), ins.Reference())
		case err != nil:
			return fmt.Errorf("look for the kernel's variable %s: %w", ins.Reference(), err)
		}
		id, err := types.TypeID(variable)
		if err != nil {
			return fmt.Errorf("look for the kernel's variable %s: %w", ins.Reference(), err)
		}
		ins.Constant = int64(id)
	}
	return nil
}
