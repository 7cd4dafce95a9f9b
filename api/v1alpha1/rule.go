package v1alpha1

// Rule is what fields must satisfy together: the API server refuses what does not, and so does
// whoever reads files, in the same words.
type Rule struct {
	// CEL is the rule about self, in Kubernetes' Common Expression Language.
	CEL string
	// Message says what is wanted.
	Message string
	// Field is the one that the message is about, empty for self.
	Field string
}

// What rules say; Kaon's own checks say the same.
const (
	WantOneSource     = "want exactly one of builtin and object"
	WantOneObject     = "want exactly one of path, configMapKeyRef, secretKeyRef and inline"
	WantOneMetric     = "want exactly one of metric and from"
	WantOneFrom       = "want exactly one of map, iterator, file, cgroup and stream"
	WantKeepOrDrop    = "want at most one of keep and drop"
	WantOneBucket     = "want exactly one of max and bounds"
	WantOneFileLabel  = "want exactly one of column, component and file"
	WantAbsolutePath  = "a custom resource names an absolute path on the node"
	WantSource        = "it is missing: a custom resource has no object beside it"
	WantNoProcess     = "a custom resource can't name a process: it is about all nodes"
	WantProgramName   = "it can't be a program's name: use lower-case letters, digits and -, at most 63"
	WantSHA256        = "want 64 hexadecimal digits"
	WantNoNodes       = "only custom resources choose nodes"
	WantNoWorkloads   = "only custom resources choose pods: kaon up --cgroup-root limits an agent"
	WantNoStatus      = "only custom resources have a status, and the controller writes it"
	WantNoClusterRefs = "only custom resources can take an object from the cluster"
)

// exactlyOne is the rule that exactly one of the fields is set.
func exactlyOne(message string, fields ...string) Rule {
	rule := "["
	for i, f := range fields {
		if i > 0 {
			rule += ", "
		}
		rule += "has(self." + f + ")"
	}
	return Rule{rule + "].exists_one(x, x)", message, ""}
}

// Rules of the resource as a whole.
func (Program) Rules() []Rule {
	return []Rule{{`self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')`, "metadata.name: " + WantProgramName, ""}}
}

// Rules of a spec. Params may be of several types, so that CEL can't see them.
func (ProgramSpec) Rules() []Rule {
	return []Rule{{`has(self.source) || has(self.metrics) && size(self.metrics) > 0 && !has(self.hooks)` +
		` && self.metrics.all(m, has(m.from) && (has(m.from.file) || has(m.from.cgroup)))`, WantSource, "source"}}
}

// Rules of a source.
func (Source) Rules() []Rule {
	return []Rule{exactlyOne(WantOneSource, "builtin", "object")}
}

// Rules of an object.
func (ObjectSource) Rules() []Rule {
	return []Rule{
		exactlyOne(WantOneObject, "path", "configMapKeyRef", "secretKeyRef", "inline"),
		{`!has(self.path) || self.path.startsWith('/')`, WantAbsolutePath, "path"},
		{`!has(self.sha256) || self.sha256.matches('^[0-9a-f]{64}$')`, WantSHA256, "sha256"},
	}
}

// Rules of a hook.
func (Hook) Rules() []Rule {
	return []Rule{{`!has(self.pid) || self.pid == 0`, WantNoProcess, "pid"}}
}

// Rules of a metric.
func (Metric) Rules() []Rule {
	return []Rule{exactlyOne(WantOneMetric, "metric", "from")}
}

// Rules of labels.
func (Labels) Rules() []Rule {
	return []Rule{{`!has(self.keep) || !has(self.drop)`, WantKeepOrDrop, ""}}
}

// Rules of buckets.
func (Buckets) Rules() []Rule {
	return []Rule{exactlyOne(WantOneBucket, "max", "bounds")}
}

// Rules of where a metric's numbers come from.
func (From) Rules() []Rule {
	return []Rule{exactlyOne(WantOneFrom, "map", "iterator", "file", "cgroup", "stream")}
}

// Rules of a label of files.
func (FileLabel) Rules() []Rule {
	return []Rule{exactlyOne(WantOneFileLabel, "column", "component", "file")}
}
