package v1alpha1

// ProgramStatus is how a Program is on the nodes that it is meant for.
type ProgramStatus struct {
	// Generation of the spec that the conditions are about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// What is made of the spec, in words: the built-in Program, or the object and where it comes from.
	Source string `json:"source,omitempty"`
	// Nodes that run it, as in 3/3.
	Summary string `json:"summary,omitempty"`
	// How many nodes the Program is meant for, and on how many it runs.
	Nodes NodeCounts `json:"nodes,omitempty"`
	// Accepted: every node could make a Program of it. Ready: it runs on all of them. Degraded: it runs, but on some without all of
	// its hooks or without its latest change.
	Conditions []Condition `json:"conditions,omitempty" maxItems:"8"`
	// What went wrong, each message once, the most frequent first; at most ten.
	Failures []Failure `json:"failures,omitempty" maxItems:"10"`
	// How many further messages there are.
	OmittedFailures int `json:"omittedFailures,omitempty"`
}

// NodeCounts counts nodes.
type NodeCounts struct {
	// Nodes whose labels the selector matches and whose agent has been heard of.
	Desired int `json:"desired"`
	// Nodes on which it runs, with all hooks that are not optional and with its latest change.
	Ready int `json:"ready"`
	// Nodes on which it does not run, or whose agent is silent.
	Failed int `json:"failed"`
}

// Failure is one message and the nodes that reported it.
type Failure struct {
	// What, where, why and what to do, as kaon check says it.
	Message string `json:"message"`
	// True if the Program runs nevertheless, with something missing.
	Degraded bool `json:"degraded,omitempty"`
	// How many nodes say so.
	Count int `json:"count"`
	// Some of them by name; at most three.
	Nodes []string `json:"nodes,omitempty" maxItems:"3"`
	// Their kernels; at most five.
	Kernels []string `json:"kernels,omitempty" maxItems:"5"`
}

// Condition is one of Kubernetes' conditions.
type Condition struct {
	// Accepted, Ready or Degraded.
	Type string `json:"type"`
	// True, False or Unknown.
	Status string `json:"status" enum:"True,False,Unknown"`
	// Generation of the spec that it is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// When status changed, in RFC 3339.
	LastTransitionTime string `json:"lastTransitionTime" format:"date-time"`
	// Why, in one word.
	Reason string `json:"reason"`
	// Why, in a sentence.
	Message string `json:"message"`
}
