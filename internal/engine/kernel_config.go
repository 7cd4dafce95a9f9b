package engine

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// setKernelConfig sets the variables of the kernel's configuration. missing says by offset why some have no value: what uses them
// can't be loaded.
func (e *Engine) setKernelConfig(coll *ebpf.CollectionSpec, variables []program.ConfigVariable) (missing map[uint32]error) {
	config := coll.Maps[program.ConfigMap]
	if len(variables) == 0 || config == nil {
		return nil
	}
	options := map[string]string{}
	for _, v := range variables {
		if strings.HasPrefix(v.Name, "CONFIG_") {
			options[v.Name] = ""
		}
	}
	var unreadable error
	if len(options) > 0 {
		unreadable = e.readKernelConfig(options)
	}
	missing = map[uint32]error{}
	data := make([]byte, config.ValueSize)
	for _, v := range variables {
		var err error
		if value, isOption := options[v.Name]; isOption {
			err = unreadable
			if err == nil {
				err = setOption(data[v.Offset:], v, value)
			}
		} else {
			err = setAbility(data[v.Offset:], v)
		}
		if err != nil {
			missing[v.Offset] = err
		}
	}
	config.Contents = []ebpf.MapKV{{Key: uint32(0), Value: data}}
	return missing
}

// missingConfig returns an error if a function uses a variable that has no value.
func missingConfig(function *ebpf.ProgramSpec, missing map[uint32]error) error {
	if len(missing) == 0 {
		return nil
	}
	for i := range function.Instructions {
		ins := &function.Instructions[i]
		if !ins.IsLoadFromMap() || ins.Reference() != program.ConfigMap {
			continue
		}
		if err := missing[uint32(uint64(ins.Constant)>>32)]; err != nil {
			return err
		}
	}
	return nil
}

// kernelConfigFiles is where the configuration of the running kernel may be.
func kernelConfigFiles() []string {
	files := []string{"/proc/config.gz"}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		release := unix.ByteSliceToString(name.Release[:])
		files = append(files, "/boot/config-"+release, "/lib/modules/"+release+"/config", "/usr/lib/modules/"+release+"/config")
	}
	return files
}

// readKernelConfig finds the values of options; what the kernel was built without stays empty.
func (e *Engine) readKernelConfig(options map[string]string) error {
	for _, path := range e.configFiles {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the kernel's configuration: %w", err)
		}
		err = parseKernelConfig(f, options)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("read the kernel's configuration %s: %w", path, err)
		}
		return nil
	}
	return fmt.Errorf("%w: variables CONFIG_... need the kernel's configuration, which is at none of: %s; in a container, mount the host's /boot",
		ErrUnsupported, strings.Join(e.configFiles, ", "))
}

// parseKernelConfig reads a kernel's .config, also gzipped. Of several values of an option the first counts.
func parseKernelConfig(r io.Reader, options map[string]string) error {
	plain := bufio.NewReader(r)
	if magic, _ := plain.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(plain)
		if err != nil {
			return err
		}
		plain = bufio.NewReader(unpacked)
	}
	lines := bufio.NewScanner(plain)
	for lines.Scan() {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte{'='})
		if known, wanted := options[string(name)]; wanted && known == "" {
			options[string(name)] = strings.TrimSpace(string(value))
		}
	}
	return lines.Err()
}

// setOption writes an option's value into data, which begins with the variable.
func setOption(data []byte, v program.ConfigVariable, value string) error {
	switch {
	case value == "" && v.Weak:
		return nil
	case value == "":
		return fmt.Errorf("%w: the kernel was built without %s: declare the variable __weak if 0 is right then", ErrUnsupported, v.Name)
	}
	mismatch := fmt.Errorf("%s is %s in the kernel's configuration, which the variable of type %v can't hold", v.Name, value, v.Type)
	switch t := btf.UnderlyingType(v.Type).(type) {
	case *btf.Enum:
		// enum libbpf_tristate
		state, known := map[string]byte{"n": 0, "y": 1, "m": 2}[value]
		if !known || t.Size != 4 || t.Name != "libbpf_tristate" {
			return mismatch
		}
		data[0] = state
	case *btf.Array:
		text, quoted := strings.CutPrefix(value, `"`)
		element, isInt := btf.UnderlyingType(t.Type).(*btf.Int)
		if !quoted || !isInt || element.Size != 1 || element.Encoding == btf.Bool || t.Nelems == 0 {
			return mismatch
		}
		copy(data[:t.Nelems-1], strings.TrimSuffix(text, `"`))
	case *btf.Int:
		if value == "y" || value == "n" || value == "m" {
			switch {
			case t.Size == 1 && t.Encoding != btf.Bool:
				data[0] = value[0]
			case t.Size == 1 && value != "m":
				data[0] = byte(boolInt(value == "y"))
			default:
				return mismatch
			}
			return nil
		}
		n, fits := parseOption(value, t)
		if !fits {
			return mismatch
		}
		putInt(data, t, n)
	default:
		return mismatch
	}
	return nil
}

// parseOption reads a number as an option has it and says whether a variable can hold it.
func parseOption(text string, t *btf.Int) (n uint64, fits bool) {
	var err error
	switch t.Encoding {
	case btf.Signed:
		var signed int64
		signed, err = strconv.ParseInt(text, 0, int(t.Size)*8)
		n = uint64(signed)
	case btf.Bool:
		n, err = strconv.ParseUint(text, 0, 1)
	default:
		n, err = strconv.ParseUint(text, 0, int(t.Size)*8)
	}
	return n, err == nil && t.Size <= 8
}

// putInt writes as many bytes of n as the variable has.
func putInt(data []byte, t *btf.Int, n uint64) {
	var all [8]byte
	binary.LittleEndian.PutUint64(all[:], n)
	copy(data, all[:min(t.Size, 8)])
}

// setAbility writes what a variable LINUX_... tells into data, which begins with the variable.
func setAbility(data []byte, v program.ConfigVariable) error {
	t, ok := btf.UnderlyingType(v.Type).(*btf.Int)
	if !ok || v.Name == "LINUX_KERNEL_VERSION" && t.Size < 4 {
		return fmt.Errorf("the variable %s can't be of type %v", v.Name, v.Type)
	}
	n := uint64(0)
	switch v.Name {
	case "LINUX_KERNEL_VERSION":
		version, err := features.LinuxVersionCode()
		if err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
		n = uint64(version)
	case "LINUX_HAS_BPF_COOKIE":
		n = uint64(boolInt(haveCookies()))
	case "LINUX_HAS_SYSCALL_WRAPPER":
		have, err := haveSyscallWrapper()
		if err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
		n = uint64(boolInt(have))
	default:
		if !v.Weak {
			return fmt.Errorf("%w: %s is neither an option of the kernel (CONFIG_...) nor LINUX_KERNEL_VERSION, LINUX_HAS_BPF_COOKIE, LINUX_HAS_SYSCALL_WRAPPER",
				ErrUnsupported, v.Name)
		}
	}
	putInt(data, t, n)
	return nil
}

// haveSyscallWrapper says whether the kernel's functions for system calls get their arguments in a struct pt_regs.
func haveSyscallWrapper() (bool, error) {
	architecture := map[string]string{
		"amd64": "x64", "arm64": "arm64", "riscv64": "riscv", "s390x": "s390x", "ppc64": "powerpc", "ppc64le": "powerpc",
	}[runtime.GOARCH]
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return false, err
	}
	defer f.Close()
	name := "__" + architecture + "_sys_bpf"
	found, err := findSymbols(f, []program.Symbol{{Name: name}})
	_, have := found[name]
	return have, err
}
