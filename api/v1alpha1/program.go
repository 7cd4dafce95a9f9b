// Package v1alpha1 has the kinds of kaon.dev/v1alpha1. Files and custom resources have the same
// schema; what only one of the two may use is said at the field.
//
// Struct tags besides json: enum lists the values that a field may have, minimum and maximum bound
// numbers, maxItems bounds lists, maxProperties maps and maxLength text. A field without omitempty is required. The doc comments
// are the descriptions in docs/reference/program.schema.json and in the custom resource definition.
package v1alpha1

// APIVersion and the kinds are what a document says in apiVersion and kind.
const (
	APIVersion  = "kaon.dev/v1alpha1"
	KindProgram = "Program"
)

// Program is eBPF code and everything it exports: where the code comes from, and what to change of what it
// says about itself.
type Program struct {
	// Always kaon.dev/v1alpha1.
	APIVersion string `json:"apiVersion" enum:"kaon.dev/v1alpha1"`
	// Always Program.
	Kind     string      `json:"kind" enum:"Program"`
	Metadata Metadata    `json:"metadata,omitempty"`
	Spec     ProgramSpec `json:"spec,omitempty"`
	// How the Program is on the nodes. Written by Kaon's controller, in custom resources only.
	Status *ProgramStatus `json:"status,omitempty"`
}

// Metadata names the Program.
type Metadata struct {
	// Name of the Program in an agent: lower-case letters, digits, - and _, at most 63. Default in
	// a file: the name that the source gives itself.
	Name string `json:"name,omitempty"`
	// For the user's own tools; Kaon does not read them.
	Labels map[string]string `json:"labels,omitempty"`
	// For the user's own tools; Kaon does not read them.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ProgramSpec says what the Program is made of.
type ProgramSpec struct {
	// Where the code comes from. Default in a file x.yaml: the object x.bpf.o or x.o beside it.
	Source *Source `json:"source,omitempty"`
	// Labels that a node must have for the Program to run on it. Default: all nodes. In custom resources only.
	NodeSelector map[string]string `json:"nodeSelector,omitempty" maxProperties:"64" maxLength:"317"`
	// Pods that are measured. Default: everything on the node. In custom resources only.
	WorkloadSelector *WorkloadSelector `json:"workloadSelector,omitempty"`
	// One sentence that says what the Program tells. Default: the source's.
	Help string `json:"help,omitempty"`
	// Values of the Program's params by name; `kaon describe` lists them. Durations such as 10ms, sizes
	// such as 64Ki, true or false, numbers, names of an enum, text, lists.
	Params map[string]Text `json:"params,omitempty" maxProperties:"256"`
	// Keep maps and links in bpffs, so that counters survive a restart of the agent. Refused for
	// Programs that can act. Default: false.
	Pin bool `json:"pin,omitempty"`
	// Changes of where functions are attached.
	Hooks []Hook `json:"hooks,omitempty" maxItems:"1000"`
	// Changes of metrics, and new metrics.
	Metrics []Metric `json:"metrics,omitempty" maxItems:"1000"`
}

// Source has exactly one field set.
type Source struct {
	// Name of a built-in Program: `kaon list`.
	Builtin string `json:"builtin,omitempty" maxLength:"63"`
	// A compiled eBPF object.
	Object *ObjectSource `json:"object,omitempty"`
}

// ObjectSource has exactly one of path, configMapKeyRef, secretKeyRef and inline set.
type ObjectSource struct {
	// Path of the object. In a file relative to that file; in a custom resource an absolute path on the node, as the agent
	// sees it.
	Path string `json:"path,omitempty" maxLength:"4096"`
	// A key of a ConfigMap in the agent's namespace. In custom resources only.
	ConfigMapKeyRef *KeyRef `json:"configMapKeyRef,omitempty"`
	// A key of a Secret in the agent's namespace. In custom resources only.
	SecretKeyRef *KeyRef `json:"secretKeyRef,omitempty"`
	// The object itself in base64, at most 256 KiB of it.
	Inline string `json:"inline,omitempty" maxLength:"349528"`
	// SHA-256 of the object in hexadecimal digits: another object is refused. Default: any is taken.
	SHA256 string `json:"sha256,omitempty" maxLength:"64"`
}

// KeyRef names one key of an object that has several.
type KeyRef struct {
	// Name of the ConfigMap or Secret.
	Name string `json:"name" maxLength:"253"`
	// Key whose value is the eBPF object.
	Key string `json:"key" maxLength:"253"`
}

// Hook changes where one eBPF function is attached. What is left out stays as the source says.
type Hook struct {
	// Name of the function in the object.
	Function string `json:"function"`
	// What stands after the kind in a section name: sched/sched_switch, vfs_read, /bin/bash:readline. With a workloadSelector, the binaries
	// of uprobes and USDT are those in the containers of the selected pods.
	Target string `json:"target,omitempty"`
	// Network interfaces by name or pattern, for XDP, tc and socket filters. Default: all that are up, loopback
	// excepted.
	Interfaces []string `json:"interfaces,omitzero" maxItems:"256"`
	// Cgroups by path or pattern below the cgroup v2 mount, for hooks that attach to cgroups. Default: the agent's cgroup root.
	Cgroups []string `json:"cgroups,omitzero" maxItems:"256"`
	// Process, for uprobes, USDT and perf events; in files only. Default: 0, which means all.
	PID *int `json:"pid,omitempty" minimum:"0"`
	// False removes the function. Default: true.
	Enabled *bool `json:"enabled,omitempty"`
	// True lets the function fail without the Program being degraded.
	Optional *bool `json:"optional,omitempty"`
}

// WorkloadSelector chooses pods by namespace and labels. What is in no pod is not chosen; an empty selector chooses all pods.
type WorkloadSelector struct {
	// Namespaces of the pods. Default: all.
	Namespaces []string `json:"namespaces,omitempty" maxItems:"256"`
	// Labels of the pods. Default: any.
	PodSelector *LabelSelector `json:"podSelector,omitempty"`
}

// LabelSelector is Kubernetes' own: all of matchLabels and matchExpressions must be true.
type LabelSelector struct {
	// Labels and their values.
	MatchLabels map[string]string `json:"matchLabels,omitempty" maxProperties:"64"`
	// Conditions on labels.
	MatchExpressions []LabelRequirement `json:"matchExpressions,omitempty" maxItems:"64"`
}

// LabelRequirement is a condition on a label.
type LabelRequirement struct {
	// Name of the label.
	Key string `json:"key" maxLength:"317"`
	// How the label relates to values.
	Operator string `json:"operator" enum:"In,NotIn,Exists,DoesNotExist"`
	// Values, for In and NotIn.
	Values []string `json:"values,omitempty" maxItems:"256"`
}
