// Package program describes a Program as pure data, before any kernel has
// seen it. Sources produce a Spec, the engine and the series consume it, and
// neither knows the other. The package imports nothing else of Kaon.
package program

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Spec is a Program as data: code, where to attach it, and how what it leaves
// in its maps becomes metrics. A Spec is read-only once a source returned it;
// who wants to change one calls Clone.
type Spec struct {
	// Name identifies the Program in an agent: [a-z0-9]([-a-z0-9_]*[a-z0-9])?,
	// at most 63 bytes.
	Name string
	// Help is one sentence that says what the Program tells.
	Help   string
	Origin Origin

	// Collection is the code and the maps; nil if there is none, or none any more: see WithoutCode.
	Collection *ebpf.CollectionSpec
	// Hooks has one entry for each eBPF function in Collection.Programs, in
	// the order of the object, iterators included.
	Hooks   []Hook
	Params  []Param
	Readers []Reader
	Streams []Stream
	// Spans are made of streams' records.
	Spans []Span
	// Symbols are kernel addresses that the code wants to know.
	Symbols []Symbol
	// KernelConfig are variables, in the map ConfigMap, that say how the kernel was configured.
	KernelConfig []ConfigVariable
	// CgroupSets are maps that hold the ids of certain cgroups, as those come and go.
	CgroupSets []CgroupSet

	// ForeignNames says that the metrics' names and help texts are another tool's, whose dashboards know them:
	// conventions don't apply.
	ForeignNames bool
	// Doubts are what the source found odd but could live with.
	Doubts []*Problem

	// Pin keeps maps and links in bpffs so that counters survive a restart of
	// the agent. Never set for Programs that act.
	Pin bool
}

// Origin says where a Program came from: for messages and to find out
// whether it changed.
type Origin struct {
	// Source is the format: "object", "manifest", ...
	Source string
	// Path is the file's path, or "builtin:NAME".
	Path string
	// Files are further ones that it was made of: the object that a manifest names.
	Files []string
	// Digest covers everything that the spec was made of.
	Digest [sha256.Size]byte
}

// HookKind is a way to attach a function to the kernel, named as in ELF section names.
type HookKind string

// The kinds of hooks. Engine has one file for each family of them.
const (
	Tracepoint     HookKind = "tracepoint"
	RawTracepoint  HookKind = "raw_tracepoint"
	TracepointBTF  HookKind = "tp_btf"
	Kprobe         HookKind = "kprobe"
	Kretprobe      HookKind = "kretprobe"
	KprobeMulti    HookKind = "kprobe.multi"
	KretprobeMulti HookKind = "kretprobe.multi"
	Ksyscall       HookKind = "ksyscall"
	Kretsyscall    HookKind = "kretsyscall"
	Fentry         HookKind = "fentry"
	Fexit          HookKind = "fexit"
	FmodRet        HookKind = "fmod_ret"
	Uprobe         HookKind = "uprobe"
	Uretprobe      HookKind = "uretprobe"
	UprobeMulti    HookKind = "uprobe.multi"
	UretprobeMulti HookKind = "uretprobe.multi"
	USDT           HookKind = "usdt"
	PerfEvent      HookKind = "perf_event"
	Iterator       HookKind = "iter"
	XDP            HookKind = "xdp"
	TCXIngress     HookKind = "tcx/ingress"
	TCXEgress      HookKind = "tcx/egress"
	Cgroup         HookKind = "cgroup"
	LSM            HookKind = "lsm"
	LSMCgroup      HookKind = "lsm_cgroup"
	SockOps        HookKind = "sockops"
	SocketFilter   HookKind = "socket"
	SKLookup       HookKind = "sk_lookup"
	Netfilter      HookKind = "netfilter"
	Syscall        HookKind = "syscall"
	// Unattached functions are loaded only: others call them, or nobody.
	Unattached HookKind = "unattached"
)

// Hook says where one eBPF function is attached.
type Hook struct {
	// Function is the key in Spec.Collection.Programs.
	Function string
	Kind     HookKind
	// Target is what the section name says after the kind: "sched/sched_switch",
	// "vfs_read", "/bin/bash:readline", "type=software,config=cpu_clock,frequency=99", "task".
	Target string

	// Group and Rank: of the hooks of one group only the first, by rank, that
	// this kernel can load and attach is used. An empty group means always.
	Group string
	Rank  int
	// Optional hooks may fail without the Program being degraded.
	Optional bool
	// When and Unless name boolean or integer params: the hook exists only if
	// the param is not zero (When) or zero (Unless). Empty means always.
	When, Unless string

	// Interfaces are patterns (path.Match) of network interface names, for
	// XDP and TCX. Empty: every interface that is up, loopback excepted.
	Interfaces []string
	// Cgroups are paths or patterns below the cgroup v2 mount, for the hooks
	// that attach to a cgroup. Empty: the agent's cgroup root.
	Cgroups []string
	// PID limits uprobes, USDT and perf events to one process. 0: all.
	PID int
}

// Param is a value that the user may set before loading: a constant of the
// object, or one of the well-known ones that aim hooks.
type Param struct {
	Name string
	Help string
	// Variable is the key in Spec.Collection.Variables; empty for params that
	// only aim hooks (interfaces, cgroups, pid).
	Variable string
	Type     ParamType
	// Size of the variable in bytes.
	Size uint32
	// Enum has the names of an enum-valued param.
	Enum map[string]int64
	// Default as text, in the form in which it would be set.
	Default string
	// Value is the text that was set; empty means Default.
	Value string
}

// ParamType is what a param's text must look like.
type ParamType string

// Param types.
const (
	ParamBool     ParamType = "bool"
	ParamInt      ParamType = "int"
	ParamUint     ParamType = "uint"
	ParamEnum     ParamType = "enum"
	ParamString   ParamType = "string"
	ParamDuration ParamType = "duration" // nanoseconds in the variable
	ParamSize     ParamType = "size"     // bytes in the variable
	ParamList     ParamType = "list"     // comma-separated; aims hooks
)

// ReaderKind is where raw keys and values come from.
type ReaderKind string

// Reader kinds.
const (
	MapReader      ReaderKind = "map"
	IteratorReader ReaderKind = "iterator"
	StreamReader   ReaderKind = "stream"
	FileReader     ReaderKind = "file"
	FieldReader    ReaderKind = "fields"
)

// Reader yields raw keys and values, from which one or more metrics are made.
type Reader struct {
	// Name is unique in the spec: the map's name in the object, also for
	// iterators (which declare a map that is never created).
	Name string
	Kind ReaderKind
	// Function is the iterator's function (IteratorReader).
	Function string
	// Stream names the Spec.Streams entry (StreamReader).
	Stream string
	// Aggregate says what a StreamReader makes of the records.
	Aggregate *Aggregate
	// File says how to read a host file (FileReader).
	File *File
	// Fields says which numbers to read from which files (FieldReader).
	Fields *Fields

	// KeySize and ValueSize in bytes. A record of an iterator is its key
	// followed by its value, without padding in between.
	KeySize, ValueSize uint32
	// Key lists the members of the key in order, flattened.
	Key []Label
	// Overflow says that the map has an entry with an all-ones key which
	// takes what could not be inserted. The engine creates it.
	Overflow bool
	// Only, if not nil, is the one key that is read.
	Only []byte
	// Zeros says that the keys of an array are series also while their value is zero.
	Zeros bool
	// Spread, if not nil, says that each slot of the reader's one histogram is a key of its own.
	Spread  *Spread
	Metrics []Metric
}

// Spread describes a histogram whose slots are keys: a member of the key is the slot's number and the value, an
// unsigned number at its beginning, what the slot counted. Keys that differ in that member only are one series.
type Spread struct {
	// Bucket is that member.
	Bucket Field
	// First is the number of the first slot; the others follow it. Numbers below it are the first slot's, those above
	// the last slot's are above all bounds.
	First int64
	// Numbers are the slots' numbers where they don't follow each other, ascending. A number in between
	// belongs to the next slot.
	Numbers []float64
	// Sum is the number of the key that holds the sum, in raw units.
	Sum float64
}

// Type is the type of a metric, in OpenMetrics' words.
type Type string

// Metric types.
const (
	Counter        Type = "counter"
	Gauge          Type = "gauge"
	Histogram      Type = "histogram"
	GaugeHistogram Type = "gaugehistogram"
	Summary        Type = "summary"
	Info           Type = "info"
	StateSet       Type = "stateset"
	Unknown        Type = "unknown"
)

// DefaultLimit is the number of series that a metric may have unless it says otherwise.
const DefaultLimit = 10000

// Metric is one family.
type Metric struct {
	// Name of the family as users see it in text: counters end in _total,
	// infos in _info.
	Name string
	Help string
	Unit string
	Type Type
	// Labels that are exported, in order. A subset of Reader.Key: what is
	// not listed is summed over.
	Labels       []Label
	StaticLabels []StaticLabel
	// CPULabel keeps a per-CPU map's values apart, by a label "cpu".
	CPULabel bool
	// Limit is the maximal number of series. 0 means DefaultLimit.
	Limit int

	// Cells says where in the value the metric's numbers lie. Scalars have
	// one; histograms two: the sum and the slots (Count > 1); summaries count,
	// sum, then one for each of Quantiles.
	Cells []Field
	// Scale converts a raw number (a histogram's sum, a quantile, a scalar)
	// to Unit.
	Scale     Scale
	Buckets   *Buckets
	Quantiles []float64
	// States are the names of a stateset's values.
	States []State
	// Exemplar says where the value holds an exemplar, nil if nowhere.
	Exemplar *Exemplar

	// When and Unless: as in Hook.
	When, Unless string
}

// Field is a number or bytes at a fixed place in a key, a value or a record.
type Field struct {
	// Offset and Size in bytes. A bitfield's Size is that of the unit that
	// holds it.
	Offset, Size uint32
	// BitOffset and BitSize: of a bitfield, from the least significant bit of
	// the little-endian unit. BitSize 0 means all of Size.
	BitOffset, BitSize uint32
	Signed             bool
	// BigEndian numbers are in network order.
	BigEndian bool
	// Count is the number of equal elements that follow each other; 0 means 1.
	Count uint32
}

// Label is one member of a key and how it becomes text.
type Label struct {
	// Name of the label. Decoders that yield several labels (workload) use
	// names of their own and ignore it.
	Name string
	// Member is the flattened name in the key, by which a manifest refers to it.
	Member string
	Field  Field
	// Decoder is a name in the table of package series: "uint", "string", "workload", "ipv4", ...
	Decoder string
	// Enum has the names of an enum's values (decoder "enum").
	Enum []State
	// EnumType is the C name of the member's enum, "" if it is none. The decoder "kernel_enum" takes the
	// names from the running kernel's enum of this name.
	EnumType string
	// OmitZero: no label where all bytes of the field are zero; a workload of that number is nobody's.
	OmitZero bool
	// Steps turn the bytes into text one after the other (decoder "chain").
	Steps []Step
}

// Step is one step of a label's chain: it turns the bytes that the one before it left into others.
type Step struct {
	// Name in the table of steps of package series: "uint", "static_map", ...
	Name string
	// Map has what "static_map" replaces; what is not in it is marked as unknown, unless AllowUnknown.
	Map          map[string]string
	AllowUnknown bool
	// Regexps of "regexp": a key of which none matches is no series. Of one with exactly one group the group is taken.
	Regexps []string
}

// StaticLabel is a label with the same value in all series of a metric.
type StaticLabel struct{ Name, Value string }

// State is a number with a name, from a BTF enum or a manifest.
type State struct {
	Name  string
	Value int64
}

// Scale is an exact ratio. The zero Scale is 1.
type Scale struct {
	Num, Den uint64
	// Factor, if not 0, is multiplied with in floating point instead, as formats do whose factors are floats.
	Factor float64
	// Float: there is nothing to scale, raw numbers are the bits of a float64 in the metric's unit. For families that are made in user
	// space; no reader adds such numbers up.
	Float bool
}

// Buckets describes a histogram's slots. Either Bounds, Upper or the native fields are set.
//
// Native: slot 0 counts what is at or below 2^Low, slots 1.. are the native
// buckets Low*2^Schema+1.. of Schema, the last slot counts what is above 2^High, in
// the metric's unit. There are (High-Low)<<Schema + 2 slots.
//
// Bounds: slot i counts what is at or below Bounds[i] and above Bounds[i-1];
// one more slot counts the rest.
type Buckets struct {
	Schema    int8
	Low, High int
	// Bounds are upper bounds in raw units, ascending.
	Bounds []uint64
	// Upper are upper bounds as they are shown, ascending, where they are no multiples of whole
	// raw numbers. One more slot counts the rest. There is no native histogram of them.
	Upper []float64

	// What is shown. Classic: at most MaxClassic buckets (0: 27), by exact
	// downscaling; or exactly at ClassicBounds (in Unit) where they coincide with slots' bounds.
	MaxClassic    int
	ClassicBounds []float64
	// NativeSchema limits the schema that is shown (nil: Schema);
	// NoNative turns native histograms off; MaxNative bounds the number of
	// populated native buckets (0: 160), by downscaling.
	NativeSchema *int8
	NoNative     bool
	MaxNative    int
}

// Slots returns the number of slots.
func (b *Buckets) Slots() int {
	switch {
	case len(b.Upper) > 0:
		return len(b.Upper) + 1
	case len(b.Bounds) > 0:
		return len(b.Bounds) + 1
	}
	return (b.High-b.Low)<<b.Schema + 2
}

// Exemplar says where a value holds its latest exemplar.
type Exemplar struct {
	// Value in raw units, Timestamp in nanoseconds of CLOCK_BOOTTIME (0: none stored).
	Value, Timestamp Field
	Labels           []Label
}

// Stream is a ring buffer with typed records.
type Stream struct {
	// Name of the ring buffer map.
	Name string
	Help string
	// RecordSize in bytes; records that are shorter are counted as lost.
	RecordSize uint32
	Fields     []Label
}

// Aggregate turns records into keys and values, in user space. The value is made of 8-byte numbers and belongs
// to the reader's one metric: a counter's number; a histogram's sum and slots (Metric.Buckets);
// a summary's count and sum.
type Aggregate struct {
	// Keys are the fields of the record whose bytes form the key, one after the other without padding.
	Keys []Field
	// Value is the field that is added up or observed; nil counts the records.
	Value *Field
	// Reset, if not 0, is how often everything is forgotten.
	Reset time.Duration
}

// Span makes OpenTelemetry spans of a stream's records.
type Span struct {
	// Stream names the Spec.Streams entry.
	Stream string
	// Name of the spans, unless a field says otherwise.
	Name string
	// Service is the OTel service.name; empty: the agent's.
	Service string
	// Attributes are the fields that become attributes, Static those that all have.
	Attributes []Label
	Static     []StaticLabel
	// What else a span has, each nil if the records don't tell: hexadecimal ids, the start in nanoseconds of
	// CLOCK_MONOTONIC, the duration in nanoseconds, and a name.
	TraceID, SpanID, ParentID, Start, Duration, NameField *Label
}

// ConfigMap is the map, an array of one value, that has the variables of Spec.KernelConfig.
const ConfigMap = ".kconfig"

// ConfigVariable is set before the code is loaded: CONFIG_... by the configuration that the running kernel was built with,
// LINUX_... by what the kernel can do.
type ConfigVariable struct {
	Name string
	// Offset in bytes in the map's value.
	Offset uint32
	Type   btf.Type
	// Weak variables are zero if the kernel has no such option.
	Weak bool
}

// Loads of a variable of the kernel, which Instruction.Reference names, have KernelVariable as their source. The constant is WeakVariable
// if the kernel may lack the variable, whose address is 0 then.
const (
	KernelVariable = asm.R3 // BPF_PSEUDO_BTF_ID
	WeakVariable   = 1
)

// Symbol is a kernel symbol whose address is written to a constant before loading.
type Symbol struct {
	// Name as in /proc/kallsyms.
	Name string
	// Variable is the key in Spec.Collection.Variables.
	Variable string
}

// SelectedMap is the map of kaon.h that holds the cgroups of the selected workloads, by the ids of kaon_workload_t. Without a
// CgroupSet for it the code measures all and the map does not exist.
const SelectedMap = "kaon_selected"

// SelectsInKernel tells whether a function asks the map SelectedMap what to measure.
func (s *Spec) SelectsInKernel() bool {
	return slices.ContainsFunc(s.Hooks, func(h Hook) bool {
		f := s.Collection.Programs[h.Function]
		return f != nil && slices.ContainsFunc(f.Instructions, func(ins asm.Instruction) bool {
			return ins.IsLoadFromMap() && ins.Reference() == SelectedMap
		})
	})
}

// Selecting tells whether only selected workloads are measured.
func (s *Spec) Selecting() bool {
	return slices.ContainsFunc(s.CgroupSets, func(c CgroupSet) bool { return c.Map == SelectedMap })
}

// CgroupSet is a map that has an entry, with the value 1, for each cgroup v2 whose path matches, or, if it is the SelectedMap, for each
// cgroup of a selected workload.
type CgroupSet struct {
	Map string
	// Storage says that the map is cgroup storage (BPF_MAP_TYPE_CGRP_STORAGE); otherwise its keys are cgroup ids, of 8 bytes.
	Storage bool
	// Regexps of which one must match the directory's path, such as /sys/fs/cgroup/system.slice/cron.service.
	Regexps []string
}

// FileColumnSize is the number of bytes that each label of a FileReader or a FieldReader takes in the key: cut
// or filled with NUL.
const FileColumnSize = 64

// File is host files as a reader: lines of columns. The Keys are the key (strings of FileColumnSize),
// the Values columns are the value, 8 bytes each, which Metric.Cells address.
type File struct {
	// Path or pattern (path/filepath.Match) of the files.
	Path string
	// Keys say where the key's strings come from.
	Keys []FileKey
	// Values are the 0-based columns that form the value.
	Values []int
	// Prefix selects the lines that start with it; empty: all.
	Prefix string
}

// FileKey is where a string of the key comes from: another file, a component of the path, or a column.
type FileKey struct {
	// File is the name of a file in the same directory, whose first line it is.
	File string
	// Component counts from 1: of /a/b the second is b. 0: it is a column.
	Component int
	// Column is 0-based.
	Column int
}

// Fields are numbers with names, in files each of which makes one entry. The value is the numbers, 8 bytes each.
type Fields struct {
	// Path or pattern of host files, and what the key is made of. An empty path means the files of cgroups; then the key
	// is the workload.
	Path string
	Keys []FileKey
	// Own says that a cgroup's numbers don't contain those of the cgroups below: all are read. Otherwise only the
	// uppermost ones below which all is the same workload.
	Own bool
	// Numbers are as many as the value has.
	Numbers []FieldNumber
}

// FieldNumber says where to find one number. Of host files only Unified.Field is used.
type FieldNumber struct {
	// Unified is where it is in cgroup v2, Legacy in v1. One without a File does not exist there.
	Unified, Legacy FieldPlace
}

// FieldPlace is a number in a cgroup's file.
type FieldPlace struct {
	// Controller is v1's whose hierarchy the file is in.
	Controller string
	File       string
	// Field is the number's name: "NAME" in a line "NAME 123" or "NAME: 123"; "LINE NAME" in a line "LINE NAME=123", or in a pair of lines
	// "LINE: NAME ...", "LINE: 123 ...". Empty: the first number of the file.
	Field string
	// Multiply converts what the file says to the metric's raw unit. 0 means 1.
	Multiply uint64
}
