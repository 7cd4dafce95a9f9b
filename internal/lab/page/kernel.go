package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/lab/kernelview"
)

// kicksSeen is the metric in which the kernel counts calls of the simulator's kick function.
const kicksSeen = "accelerator_kernel_kicks_total"

// kernelSeries is how many series the page gets at most.
const kernelSeries = 500

// KernelView is the JSON of /api/kernel.
type KernelView struct {
	kernelview.Status
	// Time in Unix milliseconds.
	Time int64 `json:"time"`
	// App is what the lab says itself, at about the same moment.
	App Self `json:"app"`
	// Seen is how many kicks the kernel counted; null if it does not say.
	Seen *uint64 `json:"seen"`
	// Series in the form of kaon run -o json; More is how many were left out.
	Series []json.RawMessage `json:"series"`
	More   int               `json:"more,omitempty"`
	// Error says what could not be read.
	Error string `json:"error,omitempty"`
}

// Self is what an application can know of itself.
type Self struct {
	Kicks         uint64  `json:"kicks"`
	CPUSeconds    float64 `json:"cpuSeconds"`
	ResidentBytes float64 `json:"residentBytes"`
}

// self asks the same collectors as a scrape does.
func (s *Server) self() Self {
	self := Self{Kicks: s.session.Lab().Totals().Kicks}
	families, err := s.process.Gather()
	if err != nil {
		s.log.Debug("some of the process's metrics are missing", "error", err)
	}
	for _, f := range families {
		switch f.GetName() {
		case "process_cpu_seconds_total":
			self.CPUSeconds = f.GetMetric()[0].GetCounter().GetValue()
		case "process_resident_memory_bytes":
			self.ResidentBytes = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return self
}

// kernel reads the kernel's view once for all that ask within a second.
type kernel struct {
	view *kernelview.View // nil if it is not asked
	mu   sync.Mutex
	read KernelView
	at   time.Time
}

func (k *kernel) status() kernelview.Status {
	if k.view == nil {
		return kernelview.Status{Reason: "the lab was started without the kernel's view", Programs: []kernelview.ProgramStatus{}}
	}
	return k.view.Status()
}

// gather implements exposition.Gather.
func (k *kernel) gather(ctx context.Context, _ []string) (exposition.Snapshot, error) {
	if status := k.status(); !status.Available {
		return exposition.Snapshot{}, errors.New("the kernel can't be asked: " + status.Reason)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	families, err := k.view.Families(ctx)
	if len(families) > 0 {
		err = nil // the rest is missing, and the view says why
	}
	return exposition.Snapshot{Families: families}, err
}

// look reads all, or returns what was read within the last second.
func (k *kernel) look(ctx context.Context, self func() Self) (KernelView, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.at) < time.Second {
		return k.read, nil
	}
	read := KernelView{Status: k.status(), Series: []json.RawMessage{}}
	if read.Available {
		// The next one gets the same: it does not depend on whether this one waits.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		families, err := k.view.Families(ctx)
		if err != nil {
			read.Error = err.Error()
		}
		for _, f := range families {
			if f.Metric.Name == kicksSeen && len(f.Values) > 0 {
				read.Seen = &f.Values[0]
			}
		}
		if read.Series, read.More, err = samples(families, kernelSeries); err != nil {
			return read, err
		}
	}
	read.App = self()
	k.at = time.Now()
	read.Time = k.at.UnixMilli()
	k.read = read
	return read, nil
}

func (s *Server) serveKernel(w http.ResponseWriter, r *http.Request) {
	read, err := s.kernel.look(r.Context(), s.self)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, read)
}

// kernelAsked notes that somebody looked at what the kernel says. That the page asks for it every other second is no sign of that.
func (s *Server) kernelAsked(w http.ResponseWriter, r *http.Request) {
	if !s.read(w, r, &struct{}{}) {
		return
	}
	if status := s.kernel.status(); !status.Available {
		s.refuse(w, http.StatusConflict, errors.New("the kernel can't be asked: "+status.Reason))
		return
	}
	if err := s.session.Done(r.Context(), StepKernel); err != nil {
		s.fail(w, err)
		return
	}
	s.session.answerState(s, w)
}
