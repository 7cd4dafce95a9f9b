package page

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/terminal"
)

// Bounds of what is kept for charts.
const (
	historySpan   = 2 * time.Minute
	historyPoints = 4000
	ownSeries     = 300
	ownCharted    = 64
)

// History is what charts begin with. Its columns have one entry per moment.
type History struct {
	// Time in Unix milliseconds.
	Time   []int64   `json:"time"`
	Ratio  []float64 `json:"ratio"`
	Energy []float64 `json:"energy"`
	Status []int     `json:"status"`
	// Power that the metric kick_power has: 0 unless the status is running.
	Power       []float64 `json:"power"`
	Temperature []float64 `json:"temperature"`
	// Own are the numbers of the kick program's metrics.
	Own []*Track `json:"own"`
}

// Track is how one number of the kick program went.
type Track struct {
	Metric string          `json:"metric"`
	Labels json.RawMessage `json:"labels"`
	// Points are pairs of Unix milliseconds and a number.
	Points [][2]float64 `json:"points"`
}

// Own are the kick program's metrics at one moment, in the form of kaon run -o json.
type Own struct {
	Time   int64             `json:"time"`
	Series []json.RawMessage `json:"series"`
	// More is how many series were left out.
	More int `json:"more,omitempty"`
}

// history is a History that grows. It is safe for concurrent use.
type history struct {
	mu   sync.Mutex
	kept History
}

func (h *history) add(s *State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := &h.kept
	k.Time = append(k.Time, s.Time)
	k.Ratio = append(k.Ratio, s.Ratio)
	k.Energy = append(k.Energy, s.Energy)
	k.Status = append(k.Status, s.Code)
	k.Power = append(k.Power, s.Power)
	k.Temperature = append(k.Temperature, s.Temperature)
	oldest := s.Time - historySpan.Milliseconds()
	first, _ := slices.BinarySearch(k.Time, oldest)
	first = max(first, len(k.Time)-historyPoints)
	// Not at every point: each time everything moves.
	if first >= 64 {
		k.Time = slices.Delete(k.Time, 0, first)
		k.Ratio, k.Energy = slices.Delete(k.Ratio, 0, first), slices.Delete(k.Energy, 0, first)
		k.Status, k.Power = slices.Delete(k.Status, 0, first), slices.Delete(k.Power, 0, first)
		k.Temperature = slices.Delete(k.Temperature, 0, first)
	}
}

// addOwn keeps the numbers among a program's metrics; what is no longer there is forgotten.
func (h *history) addOwn(own *Own) error {
	var tracks []*Track
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range own.Series {
		var s struct {
			Metric string          `json:"metric"`
			Labels json.RawMessage `json:"labels"`
			Value  *float64        `json:"value"`
			Count  *float64        `json:"count"`
		}
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		value := s.Value
		if value == nil {
			value = s.Count
		}
		if value == nil {
			continue
		}
		if len(tracks) == ownCharted {
			break
		}
		i := slices.IndexFunc(h.kept.Own, func(t *Track) bool { return t.Metric == s.Metric && bytes.Equal(t.Labels, s.Labels) })
		t := &Track{Metric: s.Metric, Labels: s.Labels}
		if i >= 0 {
			t = h.kept.Own[i]
		}
		t.Points = append(t.Points, [2]float64{float64(own.Time), *value})
		if most := int(historySpan / time.Second); len(t.Points) > most {
			t.Points = slices.Delete(t.Points, 0, len(t.Points)-most)
		}
		tracks = append(tracks, t)
	}
	h.kept.Own = tracks
	return nil
}

// json returns the history as it is.
func (h *history) json() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return json.Marshal(&h.kept)
}

// samples turns families into JSON, at most some series of them, and says how many are missing.
func samples(families []*series.Family, most int) ([]json.RawMessage, int, error) {
	var out bytes.Buffer
	if err := terminal.WriteJSON(&out, families, nil); err != nil {
		return nil, 0, err
	}
	lines := []json.RawMessage{}
	more := 0
	for line := range bytes.Lines(out.Bytes()) {
		if len(lines) == most {
			more++
			continue
		}
		lines = append(lines, json.RawMessage(bytes.TrimSpace(line)))
	}
	return lines, more, nil
}
