package series

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// ErrDecoder is wrapped by errors about labels that can't be decoded.
var ErrDecoder = errors.New("label can't be decoded")

// OverflowLabel is the label of the series that takes what is over a limit. It is reserved.
const OverflowLabel = "overflow"

// A decoder turns one member of a key into text. data holds the whole key (of
// exemplars: the value); a field that lies outside of it is an absent label. known is false if
// the name of the thing is not known yet and what was appended stands in for it.
type decoder interface {
	appendLabel(dst []byte, label *program.Label, data []byte) (text []byte, known bool)
}

// refresher is a decoder whose names come from the machine and may change.
type refresher interface {
	// generation is asked for before each collection, and differs from the last
	// answer if names may differ from those that were handed out since.
	generation(now time.Time) uint64
}

// decoderFunc is a decoder that needs nothing but the bytes.
type decoderFunc func(dst []byte, label *program.Label, data []byte) []byte

func (f decoderFunc) appendLabel(dst []byte, label *program.Label, data []byte) ([]byte, bool) {
	return f(dst, label, data), true
}

// environment is what decoders may need besides the bytes.
type environment struct {
	workloads *workloads
	host      *Host
	cgroups   Directories
}

// decoders has an entry for each name that program.Label.Decoder may have.
func decoders() map[string]func(environment) decoder {
	plain := func(f decoderFunc) func(environment) decoder {
		return func(environment) decoder { return f }
	}
	return map[string]func(environment) decoder{
		"uint":        plain(decodeInteger),
		"int":         plain(decodeInteger),
		"cpu":         plain(decodeInteger),
		"pid":         plain(decodeInteger),
		"uid":         plain(decodeInteger),
		"gid":         plain(decodeInteger),
		"netns":       plain(decodeInteger),
		"port":        plain(decodeInteger),
		"bool":        plain(decodeBool),
		"hex":         plain(decodeHex),
		"enum":        plain(decodeEnum),
		"string":      plain(decodeString),
		"comm":        plain(decodeString),
		"ipv4":        plain(decodeIPv4),
		"ipv6":        plain(decodeIPv6),
		"ip":          plain(decodeIP),
		"mac":         plain(decodeMAC),
		"protocol":    plain(decodeProtocol),
		"ethertype":   plain(decodeEthertype),
		"syscall":     plain(decodeSyscall),
		"errno":       plain(decodeErrno),
		"signal":      plain(decodeSignal),
		"device":      func(e environment) decoder { return e.host.devices },
		"ifindex":     func(e environment) decoder { return e.host.interfaces },
		"ksym":        func(e environment) decoder { return e.host.symbols },
		"kernel_enum": func(e environment) decoder { return e.host.enums },
		"workload":    func(e environment) decoder { return e.workloads },
		"chain":       func(environment) decoder { return chain{} },
	}
}

// Decoders lists the names that program.Label.Decoder may have, sorted, without "chain", which needs steps.
func Decoders() []string {
	names := make([]string, 0, 32)
	for name := range decoders() {
		if name != "chain" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// labelDecoder is a label with its decoder.
type labelDecoder struct {
	label   program.Label
	decoder decoder
}

func (l *labelDecoder) append(dst, data []byte) (text []byte, known bool) {
	if l.label.OmitZero && allZero(l.label.Field.Bytes(data)) {
		return dst, true
	}
	return l.decoder.appendLabel(dst, &l.label, data)
}

func newLabelDecoders(labels []program.Label, size uint32, env environment) ([]labelDecoder, error) {
	table := decoders()
	var list []labelDecoder
	workloads := 0
	for _, l := range labels {
		open := table[l.Decoder]
		if open == nil {
			return nil, fmt.Errorf("%w: %s: there is no decoder %q: use one of %v", ErrDecoder, l.Name, l.Decoder, Decoders())
		}
		if end := uint64(l.Field.Offset) + uint64(l.Field.Size)*uint64(max(l.Field.Count, 1)); end > uint64(size) {
			return nil, fmt.Errorf("%w: %s: it ends at byte %d of %d", ErrDecoder, l.Name, end, size)
		}
		d := labelDecoder{l, open(env)}
		if l.Decoder == "chain" {
			c, err := newChain(&l, env)
			if err != nil {
				return nil, err
			}
			d.decoder = c
		}
		if l.Decoder == "workload" {
			if workloads++; workloads > 1 {
				d.decoder = newOtherWorkload(env.workloads, l.Name)
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// checkNames refuses a label set in which a name would appear twice.
func checkNames(m *program.Metric, labels []labelDecoder) error {
	names := []string{OverflowLabel}
	for _, l := range labels {
		switch d := l.decoder.(type) {
		case *workloads:
			names = append(append(names, workload.Labels[:]...), d.extraLabels()...)
		case *otherWorkload:
			names = append(names, d.names[:]...)
			for _, extra := range d.extraLabels() {
				names = append(names, l.label.Name+"_"+extra)
			}
		default:
			names = append(names, l.label.Name)
		}
	}
	for _, l := range m.StaticLabels {
		names = append(names, l.Name)
	}
	if m.CPULabel {
		names = append(names, "cpu")
	}
	if m.Type == program.StateSet {
		names = append(names, m.Name) // the label of the states
	}
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("%w: %s: a label without a name", ErrMetric, m.Name)
		}
		if slices.Contains(names[:i], name) {
			why := "twice"
			if name == OverflowLabel {
				why = "though it is reserved for what is over a limit"
			}
			return fmt.Errorf("%w: %s: it has the label %s %s: rename or drop one", ErrMetric, m.Name, name, why)
		}
	}
	return nil
}

func appendUint(dst []byte, name string, n uint64) []byte {
	var b [20]byte
	return appendPlain(dst, name, strconv.AppendUint(b[:0], n, 10))
}

func appendInt(dst []byte, name string, n int64) []byte {
	var b [20]byte
	return appendPlain(dst, name, strconv.AppendInt(b[:0], n, 10))
}

// appendPlain appends a label whose value needs no escaping.
func appendPlain(dst []byte, name string, value []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, name...)
	dst = append(dst, '=', '"')
	dst = append(dst, value...)
	return append(dst, '"')
}
