package doctor

import (
	"github.com/kaon-project/kaon/internal/program"
)

// Assessment says whether a Program would work here.
type Assessment struct {
	Program string `json:"program"`
	// State is Yes if all that is not optional can be attached, Unknown if that depends on what could not be tried.
	State State            `json:"state"`
	Hooks []HookAssessment `json:"hooks"`
}

// HookAssessment says whether one hook's kind is available here. Whether its target
// exists is found out when it is attached.
type HookAssessment struct {
	Function string `json:"function"`
	Hook     string `json:"hook"`
	State    State  `json:"state"`
	Error    string `json:"error,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
	Optional bool   `json:"optional,omitempty"`
	// Group of alternatives; Used says that this one would be taken.
	Group string `json:"group,omitempty"`
	Used  bool   `json:"used"`
}

// Assess tells which Programs would work with what the report says. Hooks that the
// params switch off are left out.
func (r *Report) Assess(specs []*program.Spec) []Assessment {
	assessments := make([]Assessment, 0, len(specs))
	for _, spec := range specs {
		assessments = append(assessments, r.assess(spec))
	}
	return assessments
}

func (r *Report) assess(spec *program.Spec) Assessment {
	a := Assessment{Program: spec.Name, State: Yes}
	type group struct {
		best     int // index in a.Hooks of the one that would be used, -1
		rank     int
		state    State
		optional bool
	}
	groups := map[string]*group{}
	for i := range spec.Hooks {
		h := &spec.Hooks[i]
		if !spec.Enabled(h.When, h.Unless) || h.Kind == program.Unattached {
			continue
		}
		item := r.Hook(h.Kind, h.Target)
		hook := HookAssessment{Function: h.Function, Hook: hookName(h), State: item.State, Error: item.Error,
			Optional: h.Optional, Group: h.Group, Used: h.Group == "" && item.State == Yes}
		if item.State != Yes {
			hook.Remedy = item.Remedy
		}
		a.Hooks = append(a.Hooks, hook)
		if h.Group == "" {
			if !h.Optional {
				a.State = worse(a.State, item.State)
			}
			continue
		}
		g := groups[h.Group]
		if g == nil {
			g = &group{best: -1, state: No, optional: true}
			groups[h.Group] = g
		}
		g.optional = g.optional && h.Optional
		switch {
		case item.State == Yes && (g.best < 0 || h.Rank < g.rank):
			g.best, g.rank, g.state = len(a.Hooks)-1, h.Rank, Yes
		case item.State == Unknown && g.state == No:
			g.state = Unknown
		}
	}
	for _, g := range groups {
		if g.best >= 0 {
			a.Hooks[g.best].Used = true
		}
		if !g.optional {
			a.State = worse(a.State, g.state)
		}
	}
	return a
}

func worse(a, b State) State {
	if a == No || b == No {
		return No
	}
	if a == Unknown || b == Unknown {
		return Unknown
	}
	return Yes
}

// hookName is a hook as in a section name.
func hookName(h *program.Hook) string {
	switch {
	case h.Kind == program.Cgroup, h.Target == "":
		if h.Target != "" {
			return h.Target
		}
		return string(h.Kind)
	}
	return string(h.Kind) + "/" + h.Target
}
