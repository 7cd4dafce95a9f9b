package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
)

// maxDelay is how long a viewer may take for one write.
const maxDelay = 10 * time.Second

// serveKickPower is the workshop's route.
func (s *Server) serveKickPower(w http.ResponseWriter, _ *http.Request) {
	_, power := s.session.Lab().State()
	s.answer(w, http.StatusOK, struct {
		Power float64 `json:"kick_power"`
	}{power})
}

// original is the form in which the workshop's page tells its server what it simulated.
type original struct {
	Status int     `json:"status"`
	Speed  float64 `json:"speed"`
}

func (s *Server) serveState(w http.ResponseWriter, _ *http.Request) {
	state, _ := s.session.Lab().State()
	if state.Mode == lab.Compatible {
		s.answer(w, http.StatusOK, original{int(state.Published.Status), state.Published.Speed})
		return
	}
	s.answer(w, http.StatusOK, original{int(state.Status), state.Beam.Speed})
}

// takeState answers the workshop's page. The simulation runs here: what a page says changes nothing, and the answer says so.
func (s *Server) takeState(w http.ResponseWriter, r *http.Request) {
	var told struct {
		Status *int     `json:"status"`
		Speed  *float64 `json:"speed"`
	}
	if !s.read(w, r, &told) {
		return
	}
	switch {
	case told.Status == nil || told.Speed == nil:
		s.refuse(w, http.StatusBadRequest, errors.New(`want {"status": 1, "speed": 24982704}`))
		return
	case *told.Status < int(lab.Stopped) || *told.Status > int(lab.Timeout):
		s.refuse(w, http.StatusBadRequest, fmt.Errorf("status is %d: it is from %d to %d", *told.Status, lab.Stopped, lab.Timeout))
		return
	case math.Abs(*told.Speed) > lab.SpeedOfLight:
		s.refuse(w, http.StatusBadRequest, fmt.Errorf("speed is %v: nothing is faster than light, %v m/s", *told.Speed, lab.SpeedOfLight))
		return
	}
	state, _ := s.session.Lab().State()
	s.answer(w, http.StatusOK, struct {
		Message string `json:"message"`
		Status  int    `json:"status"`
	}{"state not changed: the accelerator runs on the server", int(state.Status)})
}

// answerState answers a command with the state that it made.
func (s *Session) answerState(server *Server, w http.ResponseWriter) {
	s.hub.mu.Lock()
	data := s.hub.latest["state"]
	s.hub.mu.Unlock()
	server.answer(w, http.StatusOK, json.RawMessage(data))
}

func (s *Server) serveHistory(w http.ResponseWriter, _ *http.Request) {
	data, err := s.session.history.json()
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, json.RawMessage(data))
}

// serveEvents sends what happens, as server-sent events, until the viewer goes away or is too slow.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	v := s.session.hub.join()
	if v == nil {
		w.Header().Set("Retry-After", "10")
		s.refuse(w, http.StatusServiceUnavailable, fmt.Errorf("%d pages are open already: close one", maxViewers))
		return
	}
	defer s.session.hub.leave(v)
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	// A viewer that went away is noticed by a write.
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	for {
		if err := control.SetWriteDeadline(time.Now().Add(maxDelay)); err != nil {
			s.log.Debug("a viewer's deadline could not be set", "error", err)
		}
		for _, e := range s.session.hub.take(v) {
			if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.name, e.data); err != nil {
				return
			}
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-v.wake:
		case <-alive.C:
			if _, err := fmt.Fprint(w, ":\n\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.closing.Done():
			return
		case <-s.session.ended:
			return
		}
	}
}

func (s *Server) serveProgram(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, s.session.Program())
}

// saveProgram answers 200 for a program that was saved but is broken: its problem says so.
func (s *Server) saveProgram(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Source *string `json:"source"`
		Base   string  `json:"base"`
	}
	if !s.read(w, r, &request) {
		return
	}
	if request.Source == nil {
		s.refuse(w, http.StatusBadRequest, errors.New(`source is missing: want {"source": "KICK_POWER = 40\n"}`))
		return
	}
	if len(*request.Source) > lab.MaxSource {
		s.refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("a kick program may have %d bytes, not %d", lab.MaxSource, len(*request.Source)))
		return
	}
	if err := s.session.Save(r.Context(), *request.Source, request.Base); err != nil {
		s.fail(w, err)
		return
	}
	s.serveProgram(w, r)
}

func (s *Server) resetProgram(w http.ResponseWriter, r *http.Request) {
	if !s.read(w, r, &struct{}{}) {
		return
	}
	if err := s.session.Save(r.Context(), lab.DefaultProgram, ""); err != nil {
		s.fail(w, err)
		return
	}
	s.serveProgram(w, r)
}

func (s *Server) serveDiff(w http.ResponseWriter, _ *http.Request) {
	p := s.session.Program()
	w.Header().Set("Content-Type", "text/x-diff; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := fmt.Fprint(w, diff("original", p.Original, p.File, p.Source)); err != nil {
		s.log.Debug("could not send a diff", "error", err)
	}
}
