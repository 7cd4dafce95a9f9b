package check

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// domain returns how many values a label can have; false if there is no useful bound.
func domain(l *program.Label, cpus int) (uint64, bool) {
	switch l.Decoder {
	case "enum", "kernel_enum":
		return uint64(len(l.Enum)) + 1, true // numbers without a name share nothing, but are rare
	case "bool":
		return 2, true
	case "cpu":
		return uint64(cpus), true
	case "protocol":
		return 256, true
	case "signal":
		return 65, true
	case "errno":
		return 134, true
	case "syscall":
		return 512, true
	case "uint", "int", "hex":
		n := l.Field.BitSize
		if n == 0 {
			n = 8 * l.Field.Size
		}
		if n <= 16 && l.Field.Count <= 1 {
			return 1 << n, true
		}
	}
	return 0, false
}

// cardinality is the number of series that a metric can have at most; false if that is not bounded.
func (c *checker) cardinality(r *program.Reader, m *program.Metric) (uint64, bool) {
	total := uint64(1)
	for i := range m.Labels {
		n, ok := domain(&m.Labels[i], c.options.cpus())
		if !ok {
			if spec := c.mapOf(r); spec != nil && isArray(spec.Type) && len(m.Labels) == 1 {
				return uint64(spec.MaxEntries), true
			}
			return 0, false
		}
		high, low := bits.Mul64(total, n)
		if high > 0 {
			return math.MaxUint64, true
		}
		total = low
	}
	if m.CPULabel {
		total *= uint64(c.options.cpus())
	}
	return total, true
}

// limit is the number of series that a metric may have.
func limit(m *program.Metric) uint64 {
	if m.Limit > 0 {
		return uint64(m.Limit)
	}
	return program.DefaultLimit
}

func (c *checker) mapOf(r *program.Reader) *ebpf.MapSpec {
	if r.Kind != program.MapReader || c.spec.Collection == nil {
		return nil
	}
	return c.spec.Collection.Maps[r.Name]
}

// readers checks where metrics come from: the map's type and size against limits and labels.
func (c *checker) readers() {
	known := series.Decoders()
	for i := range c.spec.Readers {
		r := &c.spec.Readers[i]
		for _, l := range r.Key {
			if l.Name != "" && l.Decoder != "chain" && !slices.Contains(known, l.Decoder) {
				fix := "known are " + strings.Join(known, ", ")
				if near := program.Nearest(l.Decoder, known); near != "" {
					fix = fmt.Sprintf("did you mean %q?", near)
				}
				c.error("map "+r.Name+", key member "+l.Member, fmt.Sprintf("unknown decoder %q", l.Decoder), fix)
			}
		}
		for j := range r.Metrics {
			c.series(r, &r.Metrics[j])
		}
		if r.Kind == program.MapReader {
			c.metricMap(r)
		}
	}
}

// series compares the possible series with the limit.
func (c *checker) series(r *program.Reader, m *program.Metric) {
	n, bounded := c.cardinality(r, m)
	if !bounded || n <= limit(m) {
		return
	}
	what := "what goes over is folded into one series"
	if !sums(m) {
		what = "what goes over is left out"
	}
	c.warn(whereMetric(m), fmt.Sprintf("its labels allow %s, its limit is %d: %s", plural(n, "series"), limit(m), what),
		"drop or coarsen a label, or raise the limit with KAON_LIMIT")
}

// sums reports whether a metric's series can be added up.
func sums(m *program.Metric) bool {
	return m.Type == program.Counter || m.Type == program.Histogram || m.Type == program.Summary
}

func isArray(t ebpf.MapType) bool { return t == ebpf.Array || t == ebpf.PerCPUArray }
func isLRU(t ebpf.MapType) bool   { return t == ebpf.LRUHash || t == ebpf.LRUCPUHash }
func isHash(t ebpf.MapType) bool {
	return t == ebpf.Hash || t == ebpf.PerCPUHash || isLRU(t)
}

func (c *checker) metricMap(r *program.Reader) {
	where := "map " + r.Name
	spec := c.mapOf(r)
	if spec == nil {
		c.error(where, "a metric is made from it, but the object has no such map", "name one of the object's maps")
		return
	}
	if err := series.Readable(spec.Type); err != nil {
		c.error(where, strings.TrimPrefix(err.Error(), series.ErrUnreadable.Error()+": "), "")
		return
	}
	counts := slices.ContainsFunc(r.Metrics, func(m program.Metric) bool { return sums(&m) })
	if isLRU(spec.Type) && counts {
		c.warn(where, "it is an LRU map: when it is full, series that were counted are evicted silently and begin again at 0",
			c.overflowFix("use a hash map with an overflow entry (KAON_COUNTER does)"))
	}
	if isHash(spec.Type) && !isLRU(spec.Type) && counts && !r.Overflow {
		c.warn(where, "it has no overflow entry: what finds the map full is not counted anywhere",
			c.overflowFix("declare it with KAON_COUNTER or another macro of kaon.h, or tag it kaon:overflow and count failed inserts there"))
	}
	if r.Overflow && (!isHash(spec.Type) || isLRU(spec.Type)) {
		c.error(where, fmt.Sprintf("a map of type %s can't have an overflow entry", spec.Type), "remove the tag, or use a hash map")
	}
	if r.Overflow && r.KeySize < 8 {
		c.warn(where, fmt.Sprintf("its key has %s, all of which may be ones: such a key and the overflow entry are the same", plural(uint64(r.KeySize), "byte")),
			"widen the key with KAON_WIDE")
	}
	if spec.MaxEntries == 0 {
		if isHash(spec.Type) || isArray(spec.Type) {
			c.error(where, "it has no max_entries", "write __uint(max_entries, 10000)")
		}
		return
	}
	c.size(where, r, spec)
}

// size compares a map's entries with what its metrics need.
func (c *checker) size(where string, r *program.Reader, spec *ebpf.MapSpec) {
	entries := uint64(spec.MaxEntries)
	if r.Overflow {
		entries--
	}
	if !isHash(spec.Type) {
		return
	}
	smallest := uint64(math.MaxUint64) // of the limits of metrics that have a series per key
	for i := range r.Metrics {
		m := &r.Metrics[i]
		perKey := len(m.Labels) == exported(r.Key)
		n, bounded := c.cardinality(r, m)
		switch {
		case bounded && perKey && n > entries && n <= limit(m):
			c.warn(where, fmt.Sprintf("it has room for %s, but the labels of %s allow %s", plural(entries, "key"), m.Name, plural(n, "series")),
				fmt.Sprintf("raise max_entries to %d", n+uint64(spec.MaxEntries)-entries))
		case perKey && m.Limit > 0 && uint64(m.Limit) > entries && (!bounded || n > entries):
			c.warn(where, fmt.Sprintf("it has room for %s, but the limit of %s is %d", plural(entries, "key"), m.Name, m.Limit),
				"raise max_entries, or lower the limit")
		}
		if !perKey {
			return // several keys make one series: more keys than series are meant
		}
		smallest = min(smallest, limit(m))
	}
	if len(r.Metrics) > 0 && entries > 4*smallest {
		c.warn(where, fmt.Sprintf("it has room for %s, but only %s are shown", plural(entries, "key"), plural(smallest, "series")),
			"lower max_entries, or raise the limit with KAON_LIMIT")
	}
}

// exported counts the members of a key that are labels.
func exported(key []program.Label) int {
	n := 0
	for _, l := range key {
		if l.Name != "" {
			n++
		}
	}
	return n
}

// overflowFix is what to do about keys that find no room.
func (c *checker) overflowFix(native string) string {
	if c.spec.ForeignNames {
		return "raise max_entries"
	}
	return native
}
