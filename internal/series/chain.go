package series

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// A step turns bytes into others: what it is given is valid during the call, what it returns until the next one.
type step interface {
	apply(in []byte) (out []byte, result result)
}

// result says what came of a step, or of a chain.
type result uint8

const (
	// unnamed: the name of the thing is not known yet; what was returned stands in for it.
	unnamed result = 1 << iota
	// skipped: the key is no series.
	skipped
)

type stepFunc func(in []byte) ([]byte, result)

func (f stepFunc) apply(in []byte) ([]byte, result) { return f(in) }

// steps has an entry for each name that program.Step.Name may have.
func steps() map[string]func(*program.Step, environment) (step, error) {
	plain := func(f stepFunc) func(*program.Step, environment) (step, error) {
		return func(*program.Step, environment) (step, error) { return f, nil }
	}
	return map[string]func(*program.Step, environment) (step, error){
		"uint":         plain(stepUint),
		"hex":          plain(stepHex),
		"string":       plain(stepString),
		"dname":        plain(stepDomainName),
		"inet_ip":      plain(stepIP),
		"errno":        plain(stepErrno),
		"syscall":      plain(stepSyscall),
		"static_map":   newMapStep,
		"regexp":       newRegexpStep,
		"cgroup":       newCgroupStep,
		"ifname":       newInterfaceStep,
		"majorminor":   newDeviceStep,
		"ksym":         newSymbolStep,
		"kstack":       newStackStep,
		"pci_vendor":   newPCIStep((*pciNames).vendor),
		"pci_device":   newPCIStep((*pciNames).device),
		"pci_class":    newPCIStep((*pciNames).class),
		"pci_subclass": newPCIStep((*pciNames).subclass),
	}
}

// Steps lists the names that program.Step.Name may have, sorted.
func Steps() []string { return slices.Sorted(maps.Keys(steps())) }

// MaxChainValue bounds what a chain makes, in bytes: stacks are longer than names.
const MaxChainValue = 16 << 10

// chain is a decoder made of steps.
type chain struct {
	steps []step
	// late says that names which are not known may be known later.
	late bool
}

// latecomer is a step whose names may become known.
type latecomer interface{ late() }

func newChain(l *program.Label, env environment) (chain, error) {
	var c chain
	table := steps()
	for i := range l.Steps {
		s := &l.Steps[i]
		open := table[s.Name]
		if open == nil {
			return c, fmt.Errorf("%w: %s: there is no step %q: use one of %v", ErrDecoder, l.Name, s.Name, Steps())
		}
		opened, err := open(s, env)
		if err != nil {
			return c, fmt.Errorf("%w: %s: %s: %w", ErrDecoder, l.Name, s.Name, err)
		}
		if _, ok := opened.(latecomer); ok {
			c.late = true
		}
		c.steps = append(c.steps, opened)
	}
	return c, nil
}

// value runs the steps.
func (c chain) value(in []byte) ([]byte, result) {
	var all result
	for _, s := range c.steps {
		var r result
		in, r = s.apply(in)
		if all |= r; r&skipped != 0 {
			return nil, all
		}
	}
	return in, all
}

// append appends the label also if its value is empty, as it was asked for by name.
func (c chain) append(dst []byte, l *program.Label, data []byte) (text []byte, known, skip bool) {
	b := l.Field.Bytes(data)
	if b == nil {
		return dst, true, false
	}
	value, r := c.value(b)
	if r&skipped != 0 {
		return dst, r&unnamed == 0, true
	}
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, l.Name...)
	dst = append(dst, '=', '"')
	dst = appendEscapedUpTo(dst, string(value), MaxChainValue)
	return append(dst, '"'), r&unnamed == 0, false
}

func (c chain) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	dst, known, _ := c.append(dst, l, data)
	return dst, known
}

// generation changes with that of any step.
func (c chain) generation(now time.Time) uint64 {
	var sum uint64
	for _, s := range c.steps {
		if r, ok := s.(refresher); ok {
			sum += r.generation(now)
		}
	}
	return sum
}

// ChainValue decodes bytes outside of a Collector, as records of a stream are. It is not safe for concurrent use.
type ChainValue struct{ chain chain }

// NewChainValue prepares the steps of a label.
func NewChainValue(l *program.Label, host *Host, cgroups Directories) (*ChainValue, error) {
	c, err := newChain(l, environment{host: host, cgroups: cgroups})
	if err != nil {
		return nil, err
	}
	return &ChainValue{c}, nil
}

// Text returns the text of the bytes. skip says that they are not to be shown at all.
func (v *ChainValue) Text(b []byte) (text string, skip bool) {
	value, r := v.chain.value(b)
	return string(value), r&skipped != 0
}
