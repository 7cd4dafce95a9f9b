package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/lab/inject"
)

// errNoInjector means that the lab was started without one.
var errNoInjector = errors.New("nothing can be injected here")

// Injection is what the page shows of one.
type Injection struct {
	inject.Status
	// CPUs and Wanted bytes are what it was started with.
	CPUs   float64 `json:"cpus"`
	Wanted int64   `json:"wanted"`
	// Duration that was wanted, and what remains of it, in seconds.
	Duration  float64 `json:"duration"`
	Remaining float64 `json:"remaining"`
	Error     string  `json:"error,omitempty"`
}

// Injections is what the page shows of all: of each kind the latest.
type Injections struct {
	Available  bool        `json:"available"`
	Injections []Injection `json:"injections"`
}

func (s *Server) injections() Injections {
	result := Injections{Available: s.options.Inject != nil, Injections: []Injection{}}
	if !result.Available {
		return result
	}
	for _, status := range s.options.Inject.Status() {
		i := Injection{
			Status: status, CPUs: status.Options.CPUs, Wanted: status.Options.Bytes,
			Duration: status.Options.Duration.Seconds(), Remaining: status.Remaining.Seconds(),
		}
		if status.Err != nil {
			i.Error = status.Err.Error()
		}
		result.Injections = append(result.Injections, i)
	}
	return result
}

// gather implements exposition.Gather: the lab's metrics and those of injections.
func (s *Server) gather(ctx context.Context, names []string) (exposition.Snapshot, error) {
	snapshot, err := s.session.Lab().Gather(ctx, names)
	if err == nil && s.options.Inject != nil {
		// The handler picks out the names.
		snapshot.Families = append(snapshot.Families, s.options.Inject.Families()...)
	}
	return snapshot, err
}

func (s *Server) serveInjections(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, s.injections())
}

// inject starts an injection.
func (s *Server) inject(w http.ResponseWriter, r *http.Request) {
	kind := inject.Kind(r.PathValue("kind"))
	step, ok := map[inject.Kind]Step{inject.CPU: StepCPU, inject.Memory: StepMemory}[kind]
	if !ok {
		s.refuse(w, http.StatusNotFound, fmt.Errorf("nothing is injected that is called %q: it is %s or %s", kind, inject.CPU, inject.Memory))
		return
	}
	var request struct {
		CPUs    float64 `json:"cpus"`
		Bytes   int64   `json:"bytes"`
		Seconds float64 `json:"seconds"`
	}
	if !s.read(w, r, &request) {
		return
	}
	if !(request.Seconds >= 0 && request.Seconds <= inject.MaxDuration.Seconds()) {
		s.fail(w, fmt.Errorf("%w: for %v seconds: say more than 0 and at most %v", inject.ErrOptions, request.Seconds, inject.MaxDuration.Seconds()))
		return
	}
	if s.options.Inject == nil {
		s.fail(w, errNoInjector)
		return
	}
	options := inject.Options{CPUs: request.CPUs, Bytes: request.Bytes, Duration: time.Duration(request.Seconds * float64(time.Second))}
	// It ends with the server, not with the request.
	if _, err := s.options.Inject.Start(s.closing, kind, options); err != nil {
		s.fail(w, err)
		return
	}
	if err := s.session.Done(r.Context(), step); err != nil {
		s.log.Debug("a step was not noted", "error", err)
	}
	s.shareInjections()
	s.serveInjections(w, r)
}

func (s *Server) stopInjection(w http.ResponseWriter, r *http.Request) {
	if s.options.Inject == nil {
		s.fail(w, errNoInjector)
		return
	}
	s.options.Inject.Stop(inject.Kind(r.PathValue("kind")))
	s.shareInjections()
	s.serveInjections(w, r)
}

func (s *Server) shareInjections() {
	if err := s.session.hub.publish("injections", s.injections()); err != nil {
		s.log.Warn("injections can't be shown", "error", err)
	}
}

// publishInjections tells the pages each second, until the context ends.
func (s *Server) publishInjections(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		s.shareInjections()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
