package v1alpha1

// Metric changes a metric that the source declares (metric) or makes a new one (from): exactly one of
// the two is set. What is left out stays as the source says.
type Metric struct {
	// Family to change, by the name under which the source exports it.
	Metric string `json:"metric,omitempty"`
	// Where a new metric's numbers come from.
	From *From `json:"from,omitempty"`

	// Name under which it is exported; _total of counters and _info of infos is appended where it lacks. Default of a new metric: the
	// map's name, then _ and the member's if there is one.
	Name string `json:"name,omitempty"`
	// One sentence that says what is counted.
	Help string `json:"help,omitempty"`
	// Type. Required for new metrics. Of what exists, counters, gauges and unknowns can be turned into each other, and so can histograms
	// and gauge histograms.
	Type string `json:"type,omitempty" enum:"counter,gauge,histogram,gaugehistogram,summary,info,stateset,unknown"`
	// Base unit of the exported number, such as seconds or bytes. The name must end in it.
	Unit string `json:"unit,omitempty"`
	// What a raw number is multiplied with to get the unit: an exact ratio such as 1/1000000000, or a decimal number. Default: 1.
	Scale Text `json:"scale,omitempty"`
	// Which labels it has.
	Labels *Labels `json:"labels,omitempty"`
	// Labels with the same value in all series, by name.
	StaticLabels map[string]string `json:"staticLabels,omitempty"`
	// Keep the values of a per-CPU map apart, by a label cpu. Default: false, they are summed.
	CPULabel *bool `json:"cpuLabel,omitempty"`
	// Maximal number of series; what goes beyond is folded into one with overflow="true" or, for types that can't be summed, left
	// out. Default: 10000.
	Limit int `json:"limit,omitempty" minimum:"1" maximum:"10000000"`
	// Classic buckets of a histogram.
	Buckets *Buckets `json:"buckets,omitempty"`
	// Native buckets of a histogram.
	Native *Native `json:"native,omitempty"`
	// Names of a new stateset's values by number. Default: the names of the value's enum.
	States map[string]string `json:"states,omitempty"`
	// True leaves the metric out.
	Disabled bool `json:"disabled,omitempty"`
}

// Labels says which members of the key are labels, and how they become text. A label is named
// by its name in the source or by the key's member.
type Labels struct {
	// The labels that stay; series that then are the same are summed. Not together with drop. Default: all.
	Keep []string `json:"keep,omitzero"`
	// The labels that go; series that then are the same are summed.
	Drop []string `json:"drop,omitzero"`
	// New names by label.
	Rename map[string]string `json:"rename,omitempty"`
	// Decoder by label: what the bytes mean. uint, int, string, ipv4, workload, device, ...; numbers in network order: port_be, uint_be.
	Decode map[string]string `json:"decode,omitempty"`
	// Texts of a number by label and number: {state: {1: open, 2: closed}}. Other numbers stay numbers.
	Values map[string]map[string]string `json:"values,omitempty"`
	// Steps by label that make text of the bytes one after the other, for what no single decoder does. Not together with decode or values.
	Steps map[string][]Step `json:"steps,omitempty"`
}

// Step turns what the step before it left, at first the bytes of the member, into something else.
type Step struct {
	// What it does, named as the decoders of ebpf_exporter: uint, string, static_map, regexp, ...
	Name string `json:"name"`
	// Texts by what they replace (static_map). Others become unknown:TEXT.
	Values map[string]string `json:"values,omitempty"`
	// True keeps what values does not have as it is.
	AllowUnknown bool `json:"allowUnknown,omitempty"`
	// Regular expressions of which one must match, or the key is left out (regexp). If that one has exactly one group, what
	// the group matched remains.
	Regexps []string `json:"regexps,omitempty" maxItems:"1000"`
}

// Buckets says which classic buckets are shown: max or bounds. Buckets are merged, never split: their counts stay exact.
type Buckets struct {
	// At most this many, by merging neighbours. Default: 27, or all where the program has explicit bounds.
	Max int `json:"max,omitempty" minimum:"1" maximum:"2048"`
	// Upper bounds in the metric's unit, ascending. Each must be a bound that the program counts by.
	Bounds []float64 `json:"bounds,omitempty" maxItems:"2048"`
}

// Native says how native histograms are shown.
type Native struct {
	// True sends classic buckets only.
	Disabled bool `json:"disabled,omitempty"`
	// Maximal resolution: 2^schema buckets per power of two. Default: the program's.
	Schema *int `json:"schema,omitempty" minimum:"-4" maximum:"8"`
	// Maximal number of populated buckets in one series; above it the resolution is halved. Default: 160.
	MaxBuckets int `json:"maxBuckets,omitempty" minimum:"4" maximum:"2048"`
}

// From says where a new metric's numbers come from. Exactly one of map, iterator, file, cgroup and stream is set.
type From struct {
	// Name of a map in the object. Its key and value are described by BTF, else by key and value here.
	Map string `json:"map,omitempty"`
	// Name of an iterator function in the object that emits records: the key followed by the value,
	// as described by key and value here.
	Iterator string `json:"iterator,omitempty"`
	// Files of the host, such as one below /proc.
	File *File `json:"file,omitempty"`
	// A file of each cgroup, by workload.
	Cgroup *CgroupFile `json:"cgroup,omitempty"`
	// Records of a ring buffer, counted or added up in user space.
	Stream *Stream `json:"stream,omitempty"`

	// Member of the map's value that is the number; nested names are joined by _. Default: the value itself.
	Member string `json:"member,omitempty"`
	// Layout of the key where BTF does not know it.
	Key []Column `json:"key,omitempty" maxItems:"256"`
	// Layout of the value where BTF does not know it.
	Value []Column `json:"value,omitempty" maxItems:"256"`
	// Which members are a histogram's.
	Histogram *Histogram `json:"histogram,omitempty"`
	// Which members are a summary's.
	Summary *Summary `json:"summary,omitempty"`
}

// Column is a member of a key or value that BTF does not describe.
type Column struct {
	// Name of the member.
	Name string `json:"name"`
	// Bytes from the beginning of the key or value.
	Offset int `json:"offset,omitempty" minimum:"0" maximum:"65535"`
	// Bytes of one element.
	Size int `json:"size" minimum:"1" maximum:"65535"`
	// What it holds.
	Type string `json:"type" enum:"uint,int,string"`
	// Number of elements that follow each other (a histogram's slots). Default: 1.
	Count int `json:"count,omitempty" minimum:"1" maximum:"65535"`
	// True for numbers in network order.
	BigEndian bool `json:"bigEndian,omitempty"`
}

// Histogram describes the slots of a histogram in a map's value, or those of one that is made of a
// stream: either bounds, or schema with low and high. A map whose keys are the slots has key and upper instead.
type Histogram struct {
	// Member that holds the sum. Maps only.
	Sum string `json:"sum,omitempty"`
	// Member that holds the slots: an array of numbers. Maps only.
	Slots string `json:"slots,omitempty"`
	// Upper bounds in raw units, ascending. There is one more slot than bounds.
	Bounds []uint64 `json:"bounds,omitempty" maxItems:"4096"`
	// Native schema: 2^schema slots per power of two, in the metric's unit.
	Schema int `json:"schema,omitempty" minimum:"0" maximum:"5"`
	// Power of two of the lowest bound: slot 0 counts what is at or below it.
	Low int `json:"low,omitempty" minimum:"-64" maximum:"64"`
	// Power of two of the highest bound: the last slot counts what is above it.
	High int `json:"high,omitempty" minimum:"-64" maximum:"64"`
	// Member of the map's key that is the number of a slot: each slot is an entry of its own, whose value is what it
	// counted. That is many times dearer to read than an array of slots.
	Key string `json:"key,omitempty"`
	// Upper bounds of these slots in the metric's unit, ascending. What is above is counted by numbers above.
	Upper []float64 `json:"upper,omitempty" maxItems:"16384"`
	// Number of the first of these slots; the others follow.
	First int `json:"first,omitempty"`
	// Numbers of these slots where they don't follow each other.
	Numbers []float64 `json:"numbers,omitempty" maxItems:"16384"`
	// Number of the entry that holds the sum. Default: the one after the last slot's.
	SumNumber *float64 `json:"sumNumber,omitempty"`
}

// Summary describes a summary in a map's value.
type Summary struct {
	// Member that holds the number of observations.
	Count string `json:"count"`
	// Member that holds their sum.
	Sum string `json:"sum"`
}

// File reads lines of columns that are separated by white space, or a number with a name. Metrics of the same path and
// labels that have a field are read together.
type File struct {
	// Absolute path on the host, or a pattern of paths.
	Path string `json:"path"`
	// Only lines that begin with it are read. Default: all.
	Prefix string `json:"prefix,omitempty"`
	// What becomes labels.
	Labels []FileLabel `json:"labels,omitempty" maxItems:"16"`
	// Column of the number: a whole number. The first column is 1, which is the default.
	Value int `json:"value,omitempty" minimum:"1" maximum:"1024"`
	// Name of the number, instead of a column: NAME, or LINE NAME.
	Field string `json:"field,omitempty"`
}

// FileLabel is what becomes a label: exactly one of column, component and file is set.
type FileLabel struct {
	// Name of the label.
	Name string `json:"name"`
	// Column of the line. The first is 1.
	Column int `json:"column,omitempty" minimum:"1" maximum:"1024"`
	// Component of the path. The first is 1.
	Component int `json:"component,omitempty" minimum:"1" maximum:"64"`
	// Name of a file in the same directory, whose first line it is.
	File string `json:"file,omitempty"`
}

// CgroupFile reads a number from a file of each cgroup that is measured. The label is the workload.
type CgroupFile struct {
	// Name of the file in cgroup v2. Empty if it is not there.
	File string `json:"file,omitempty"`
	// Name of the number: NAME, or LINE NAME. Default: the first number of the file.
	Field string `json:"field,omitempty"`
	// What the number is multiplied with, before scale. Default: 1.
	Multiply int `json:"multiply,omitempty" minimum:"1" maximum:"1000000000"`
	// True if a cgroup's number does not contain those of the cgroups below it: then all are read. Otherwise one of
	// each workload.
	Own bool `json:"own,omitempty"`
	// Where the number is in cgroup v1. Default: it is not there.
	V1 *CgroupV1File `json:"v1,omitempty"`
}

// CgroupV1File is where a number is in cgroup v1.
type CgroupV1File struct {
	// Controller in whose hierarchy the file is: memory, cpu, cpuacct, blkio, ...
	Controller string `json:"controller"`
	// Name of the file. Default: as in v2.
	File string `json:"file,omitempty"`
	// Name of the number. Default: as in v2, if the file is the same.
	Field string `json:"field,omitempty"`
	// What the number is multiplied with, before scale. Default: 1.
	Multiply int `json:"multiply,omitempty" minimum:"1" maximum:"1000000000"`
}

// Stream counts the records of a ring buffer, or adds up one of their fields.
type Stream struct {
	// Name of the ring buffer, which the object declares with its record type (KAON_STREAM).
	Name string `json:"name"`
	// Fields of the record that become labels.
	Labels []string `json:"labels,omitempty" maxItems:"64"`
	// Field that is added up or observed. Default: records are counted.
	Value string `json:"value,omitempty"`
}
