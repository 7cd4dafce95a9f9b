package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Errors of params.
var (
	ErrNoParam    = errors.New("no such param")
	ErrParamValue = errors.New("not a valid value")
)

// Names of the params that aim hooks. Sources declare them where a Program
// has hooks to aim; they exist besides the object's constants.
const (
	ParamInterfaces = "interfaces"
	ParamCgroups    = "cgroups"
	ParamPID        = "pid"
	ParamFrequency  = "frequency"
)

// AimParams returns the params that the hooks call for: interfaces, cgroups, pid, frequency.
func AimParams(hooks []Hook) []Param {
	var interfaces, cgroups, pid bool
	frequency := ""
	for _, h := range hooks {
		switch h.Kind {
		case XDP, TCXIngress, TCXEgress, SocketFilter:
			interfaces = true
		case Cgroup, SockOps, LSMCgroup:
			cgroups = true
		case PerfEvent:
			pid = true
			if _, value, ok := cutFrequency(h.Target); ok && frequency == "" {
				frequency = value
			}
		case Uprobe, Uretprobe, UprobeMulti, UretprobeMulti, USDT:
			pid = true
		}
	}
	var params []Param
	if interfaces {
		params = append(params, Param{Name: ParamInterfaces, Type: ParamList,
			Help: "Network interfaces to attach to, by name or pattern. Empty: all that are up, loopback excepted."})
	}
	if cgroups {
		params = append(params, Param{Name: ParamCgroups, Type: ParamList,
			Help: "Cgroups to attach to, by path or pattern below the cgroup v2 mount. Empty: the agent's cgroup root."})
	}
	if pid {
		params = append(params, Param{Name: ParamPID, Type: ParamUint, Size: 4, Default: "0",
			Help: "Process to attach to. 0: all."})
	}
	if frequency != "" {
		params = append(params, Param{Name: ParamFrequency, Type: ParamUint, Size: 4, Default: frequency,
			Help: "Samples per second on each CPU."})
	}
	return params
}

// cutFrequency finds the frequency in the target of a perf_event: where its number begins, and the number.
func cutFrequency(target string) (at int, value string, ok bool) {
	const field = "frequency="
	for from := 0; from < len(target); {
		item, _, _ := strings.Cut(target[from:], ",")
		if value, ok := strings.CutPrefix(item, field); ok {
			return from + len(field), value, true
		}
		from += len(item) + 1
	}
	return 0, "", false
}

// SetParam checks text against the param's type and sets it; a param that aims
// hooks is applied to them. The error names the params that there are.
func (s *Spec) SetParam(name, text string) error {
	for i := range s.Params {
		p := &s.Params[i]
		if p.Name != name {
			continue
		}
		if _, err := p.Encode(text); err != nil {
			return fmt.Errorf("param %s of %s: %w", name, s.Name, err)
		}
		p.Value = text
		if p.Variable == "" {
			s.aim(name, text)
		}
		return nil
	}
	names := make([]string, 0, len(s.Params))
	for _, p := range s.Params {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("param %s of %s: %w: the program has no params", name, s.Name, ErrNoParam)
	}
	return fmt.Errorf("param %s of %s: %w: it has %s", name, s.Name, ErrNoParam, strings.Join(names, ", "))
}

func (s *Spec) aim(name, text string) {
	list := SplitList(text)
	for i := range s.Hooks {
		h := &s.Hooks[i]
		switch name {
		case ParamInterfaces:
			h.Interfaces = list
		case ParamCgroups:
			h.Cgroups = list
		case ParamPID:
			h.PID, _ = strconv.Atoi(text)
		case ParamFrequency:
			if at, old, ok := cutFrequency(h.Target); ok && h.Kind == PerfEvent {
				h.Target = h.Target[:at] + text + h.Target[at+len(old):]
			}
		}
	}
}

// SplitList splits a list param at its commas; empty elements are dropped.
func SplitList(text string) []string {
	var list []string
	for _, e := range strings.Split(text, ",") {
		if e = strings.TrimSpace(e); e != "" {
			list = append(list, e)
		}
	}
	return list
}

// Text returns what is in force: Value, or Default.
func (p *Param) Text() string {
	if p.Value != "" {
		return p.Value
	}
	return p.Default
}

// Encode converts text to the bytes of the param's variable, little-endian
// (every machine that Kaon supports is). Params without a variable yield their
// text's bytes.
func (p *Param) Encode(text string) ([]byte, error) {
	bad := func(want string) error {
		return fmt.Errorf("%w: %q: want %s", ErrParamValue, text, want)
	}
	switch p.Type {
	case ParamBool:
		switch text {
		case "true", "yes", "on", "1":
			return p.integer(big.NewInt(1), text)
		case "false", "no", "off", "0":
			return p.integer(big.NewInt(0), text)
		}
		return nil, bad("true or false")
	case ParamInt, ParamUint:
		n, ok := new(big.Int).SetString(text, 0)
		if !ok {
			return nil, bad("a whole number")
		}
		return p.integer(n, text)
	case ParamEnum:
		if n, ok := p.Enum[text]; ok {
			return p.integer(big.NewInt(n), text)
		}
		if n, err := strconv.ParseInt(text, 0, 64); err == nil && slices.Contains(slices.Collect(maps.Values(p.Enum)), n) {
			return p.integer(big.NewInt(n), text)
		}
		names := make([]string, 0, len(p.Enum))
		for name := range p.Enum {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, bad("one of " + strings.Join(names, ", "))
	case ParamDuration:
		if n, ok := new(big.Int).SetString(text, 10); ok && n.Sign() == 0 {
			return p.integer(n, text)
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return nil, bad("a duration such as 10ms")
		}
		return p.integer(big.NewInt(int64(d)), text)
	case ParamSize:
		n, err := parseSize(text)
		if err != nil {
			return nil, bad("a size such as 4096, 64KiB or 1MB")
		}
		return p.integer(n, text)
	case ParamString:
		if p.Variable == "" {
			return []byte(text), nil
		}
		if strings.IndexByte(text, 0) >= 0 {
			return nil, bad("text without NUL bytes")
		}
		if uint64(len(text)) >= uint64(p.Size) {
			return nil, bad(fmt.Sprintf("at most %d bytes", int64(p.Size)-1))
		}
		b := make([]byte, p.Size)
		copy(b, text)
		return b, nil
	case ParamList:
		return []byte(text), nil
	}
	return nil, fmt.Errorf("%w: the type %q is unknown", ErrParamValue, p.Type)
}

// integer fits n into the variable's size.
func (p *Param) integer(n *big.Int, text string) ([]byte, error) {
	size := p.Size
	switch size {
	case 0:
		size = 8
	case 1, 2, 4, 8:
	default:
		return nil, fmt.Errorf("%w: a variable of %d bytes can't hold a number", ErrParamValue, size)
	}
	low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(size)*8)
	if p.Type == ParamInt || p.Type == ParamEnum && n.Sign() < 0 {
		high.Rsh(high, 1)
		low.Neg(high)
	}
	if n.Cmp(low) < 0 || n.Cmp(high) >= 0 {
		return nil, fmt.Errorf("%w: %q: out of range: want %s to %s", ErrParamValue, text, low, high.Sub(high, big.NewInt(1)))
	}
	var b [8]byte
	if n.Sign() < 0 {
		binary.LittleEndian.PutUint64(b[:], uint64(n.Int64()))
	} else {
		binary.LittleEndian.PutUint64(b[:], n.Uint64())
	}
	return b[:size], nil
}

// ParseSize reads a number of bytes such as 4096, 64KiB or 1MB.
func ParseSize(text string) (uint64, error) {
	n, err := parseSize(text)
	if err != nil || !n.IsUint64() {
		return 0, fmt.Errorf("%w: %q: want a size such as 4096, 64KiB or 1MB", ErrParamValue, text)
	}
	return n.Uint64(), nil
}

func parseSize(text string) (*big.Int, error) {
	text = strings.TrimSuffix(text, "B")
	digits := strings.TrimRight(text, "KMGTi")
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok || n.Sign() < 0 {
		return nil, ErrParamValue
	}
	factor := map[string]int64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}[text[len(digits):]]
	if factor == 0 {
		return nil, ErrParamValue
	}
	return n.Mul(n, big.NewInt(factor)), nil
}

// Enabled reports whether what carries these conditions exists with the params as they are.
// A condition on a param that does not exist is false (sources refuse it earlier).
func (s *Spec) Enabled(when, unless string) bool {
	return (when == "" || s.truth(when)) && (unless == "" || !s.truth(unless))
}

func (s *Spec) truth(name string) bool {
	for i := range s.Params {
		p := &s.Params[i]
		if p.Name != name {
			continue
		}
		b, err := p.Encode(p.Text())
		return err == nil && slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
	}
	return false
}
