package page

import (
	"encoding/json"
	"slices"
	"sync"
)

// maxViewers is how many pages may be open at once.
const maxViewers = 64

// hub passes events on to those who look. It keeps the latest event of each name, for them and for who comes later:
// a slow viewer misses some, and holds nobody up.
type hub struct {
	mu      sync.Mutex
	names   []string // in order of their first appearance
	latest  map[string][]byte
	viewers map[*viewer]bool
}

func newHub() *hub { return &hub{latest: map[string][]byte{}, viewers: map[*viewer]bool{}} }

// viewer is one open page.
type viewer struct {
	// wake has room for one: something is pending.
	wake    chan struct{}
	pending map[string][]byte
}

// event is what is sent: its name and JSON.
type event struct {
	name string
	data []byte
}

// publish must be given what json can encode.
func (h *hub) publish(name string, payload any) error {
	data, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.latest[name]; !known {
		h.names = append(h.names, name)
	}
	h.latest[name] = data
	for v := range h.viewers {
		v.pending[name] = data
		select {
		case v.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// join returns a viewer that has everything to see, or nil if there are too many.
func (h *hub) join() *viewer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.viewers) >= maxViewers {
		return nil
	}
	v := &viewer{wake: make(chan struct{}, 1), pending: map[string][]byte{}}
	for name, data := range h.latest {
		v.pending[name] = data
	}
	v.wake <- struct{}{}
	h.viewers[v] = true
	return v
}

func (h *hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, v)
}

// take returns what is pending for a viewer.
func (h *hub) take(v *viewer) []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := make([]event, 0, len(v.pending))
	for _, name := range h.names {
		if data, ok := v.pending[name]; ok {
			events = append(events, event{name, data})
		}
	}
	clear(v.pending)
	return slices.Clip(events)
}
