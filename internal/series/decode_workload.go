package series

import (
	"strconv"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// workloads are those that the keys of one reader name. Each is asked for once
// a collection, however many keys it has.
type workloads struct {
	resolver workload.Resolver
	byID     map[workload.ID]*workloadState
	last     *workloadState
	epoch    uint32
	field    *program.Field // in the key, of the one that rules a key's life; nil if the key names none
	others   []*program.Field
	nobody   bool // the id 0 is no workload, rather than one that is not known
}

type workloadState struct {
	id       workload.ID
	workload workload.Workload
	state    workload.State
	epoch    uint32
	renamed  bool // since the last complete read
	shown    bool // with these names or others
}

func newWorkloads(resolver workload.Resolver, key []program.Label) *workloads {
	w := &workloads{resolver: resolver, byID: map[workload.ID]*workloadState{}}
	for i := range key {
		switch {
		case key[i].Decoder != "workload":
		case w.field == nil:
			w.field = &key[i].Field
			w.nobody = key[i].OmitZero
		default:
			w.others = append(w.others, &key[i].Field)
			w.nobody = w.nobody || key[i].OmitZero
		}
	}
	return w
}

// begin asks for all that are known: what became of them since.
func (w *workloads) begin() {
	w.epoch++
	for _, s := range w.byID {
		now, state := w.resolve(s.id)
		// What was selected once stays so: sums could neither lose it nor get it back.
		if !s.workload.Unselected || state == workload.Gone {
			now.Unselected = s.workload.Unselected
		}
		named := now
		named.Unselected = false
		forgotten := state == workload.Unresolved || state == workload.Gone && named == workload.Workload{}
		if forgotten && s.state != workload.Unresolved {
			// The resolver forgot it: it is long gone; we keep its name, and that it is none of ours.
			now, state = s.workload, max(s.state, workload.Gone)
		}
		if now != s.workload || (state == workload.Unresolved) != (s.state == workload.Unresolved) {
			s.renamed = true
		}
		s.workload, s.state = now, state
	}
}

// adopt goes on with another resolver, which may select others.
func (w *workloads) adopt(resolver workload.Resolver) {
	w.resolver = resolver
	for _, s := range w.byID {
		if now, state := w.resolve(s.id); state != workload.Gone {
			s.workload.Unselected = now.Unselected
		}
	}
}

func (w *workloads) resolve(id workload.ID) (workload.Workload, workload.State) {
	if id == 0 && w.nobody {
		return workload.Workload{}, workload.Alive
	}
	if w.resolver == nil {
		return workload.Workload{}, workload.Unresolved
	}
	return w.resolver.Resolve(id)
}

// get returns what is known of a workload.
func (w *workloads) get(id workload.ID) *workloadState {
	if w.last != nil && w.last.id == id {
		w.last.epoch = w.epoch
		return w.last
	}
	s := w.byID[id]
	if s == nil {
		s = &workloadState{id: id}
		s.workload, s.state = w.resolve(id)
		w.byID[id] = s
	}
	s.epoch = w.epoch
	w.last = s
	return s
}

// finish forgets workloads that a complete read did not see.
func (w *workloads) finish() {
	w.last = nil
	for id, s := range w.byID {
		if s.epoch != w.epoch {
			delete(w.byID, id)
		}
		s.renamed = false
	}
}

// appendLabel appends the labels of a workload that are not empty. One that is not known (yet) has the label
// cgroup="unresolved:ID", or "unresolved:HIERARCHY:ID" on cgroup v1.
func (w *workloads) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	if l.Field.Bytes(data) == nil {
		return dst, true
	}
	return w.appendNames(dst, &workload.Labels, w.get(workload.ID(l.Field.Number(data))))
}

func (w *workloads) appendNames(dst []byte, names *[len(workload.Labels)]string, s *workloadState) ([]byte, bool) {
	// One that is gone without having been named looks the same, but is final.
	if s.state == workload.Unresolved || s.workload == (workload.Workload{}) {
		var b [48]byte
		text := append(b[:0], "unresolved:"...)
		if hierarchy := uint64(s.id) >> 48; hierarchy != 0 {
			text = append(strconv.AppendUint(text, hierarchy, 10), ':')
		}
		text = strconv.AppendUint(text, uint64(s.id)&(1<<48-1), 10)
		return appendPlain(dst, names[len(names)-1], text), s.state != workload.Unresolved
	}
	for i, v := range s.workload.Values() {
		dst = AppendLabel(dst, names[i], v)
	}
	prefix := strings.TrimSuffix(names[0], workload.Labels[0])
	s.workload.Extra.Each(func(name, v string) { dst = AppendLabel(dst, prefix+name, v) })
	return dst, !s.workload.Pending
}

// extraLabels are the names of the labels that a workload may have beside those of workload.Labels.
func (w *workloads) extraLabels() []string {
	if r, ok := w.resolver.(interface{ ExtraLabels() []string }); ok {
		return r.ExtraLabels()
	}
	return nil
}

// otherWorkload is a second workload in a key, such as the peer of a
// connection: its labels are prefixed with the member's name.
type otherWorkload struct {
	*workloads
	names [len(workload.Labels)]string
}

func newOtherWorkload(w *workloads, name string) *otherWorkload {
	o := &otherWorkload{workloads: w}
	for i, l := range workload.Labels {
		o.names[i] = name + "_" + l
	}
	return o
}

func (o *otherWorkload) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	if l.Field.Bytes(data) == nil {
		return dst, true
	}
	return o.appendNames(dst, &o.names, o.get(workload.ID(l.Field.Number(data))))
}
