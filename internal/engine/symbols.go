package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// ErrNoSymbol is wrapped by errors about kernel symbols whose address is not to be had.
var ErrNoSymbol = errors.New("no such kernel symbol")

// setSymbols writes the addresses of kernel symbols into the collection's variables.
func setSymbols(coll *ebpf.CollectionSpec, symbols []program.Symbol) error {
	if len(symbols) == 0 {
		return nil
	}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return fmt.Errorf("look for kernel symbols: %w", err)
	}
	defer f.Close()
	addresses, err := findSymbols(f, symbols)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range symbols {
		address, found := addresses[s.Name]
		switch v := coll.Variables[s.Variable]; {
		case !found:
			errs = append(errs, fmt.Errorf("%w: %s is not in /proc/kallsyms: symbols of data are only there if the kernel has CONFIG_KALLSYMS_ALL", ErrNoSymbol, s.Name))
		case address == 0:
			errs = append(errs, fmt.Errorf("%w: the address of %s is hidden: run with CAP_SYSLOG, or set kernel.kptr_restrict to 1 or 0", ErrNoSymbol, s.Name))
		case v == nil:
			errs = append(errs, fmt.Errorf("kernel symbol %s: the object has no variable %s", s.Name, s.Variable))
		default:
			if err := v.Set(address); err != nil {
				errs = append(errs, fmt.Errorf("kernel symbol %s: set %s: %w", s.Name, s.Variable, err))
			}
		}
	}
	return errors.Join(errs...)
}

// findSymbols returns the addresses of those symbols that a kallsyms file has; of several of one name the first, and 0
// where it is hidden.
func findSymbols(r io.Reader, symbols []program.Symbol) (map[string]uint64, error) {
	wanted := make(map[string]bool, len(symbols))
	for _, s := range symbols {
		wanted[s.Name] = true
	}
	found := make(map[string]uint64, len(symbols))
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(found) < len(wanted) {
		text, rest, _ := strings.Cut(lines.Text(), " ")
		if len(rest) < 3 {
			continue
		}
		name, _, _ := strings.Cut(rest[2:], "\t")
		if _, known := found[name]; !wanted[name] || known {
			continue
		}
		address, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			continue
		}
		found[name] = address
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	return found, nil
}
