package exposition

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

func FuzzLabelPairs(f *testing.F) {
	f.Add(`a="b",c="d\"e"`)
	f.Add(`a="`)
	f.Add(`="",,"`)
	f.Fuzz(func(t *testing.T, labels string) {
		appendLabelPairs(nil, labels)
		relabel(labels, model.UnderscoreEscaping, true)

		// A set that was rendered properly comes out whole.
		name, value, _ := strings.Cut(labels, "=")
		name = escapeLabelName(strings.ToValidUTF8(name, "?"), model.ValueEncodingEscaping)
		if name == "" {
			return
		}
		set := series.AppendLabel(series.AppendLabel(nil, name, value), "last", value)
		var want []byte
		series.EachLabel(string(set), func(name, value string) bool {
			want = appendLabelPair(want, name, value)
			return true
		})
		if got := appendLabelPairs(nil, string(set)); string(got) != string(want) {
			t.Fatalf("%s: got %q, want %q", set, got, want)
		}
	})
}

// fuzzSource deals out bytes, zeros at the end.
type fuzzSource []byte

func (s *fuzzSource) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

func (s *fuzzSource) number() uint64 {
	var b [8]byte
	kind := s.byte()
	for i := range int(kind % 9) {
		b[i] = s.byte()
	}
	if kind > 250 {
		return math.MaxUint64
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (s *fuzzSource) text() string {
	n := min(int(s.byte()%24), len(*s))
	text := string((*s)[:n])
	*s = (*s)[n:]
	return text
}

func (s *fuzzSource) family() *series.Family {
	types := []program.Type{program.Counter, program.Gauge, program.Histogram, program.GaugeHistogram, program.Summary,
		program.Info, program.StateSet, program.Unknown, "nonsense"}
	suffixes := []string{"", "_total", "_info", "_seconds", "_seconds_total", "_bucket"}
	m := &program.Metric{
		Name: s.text() + suffixes[int(s.byte())%len(suffixes)], Help: s.text(), Type: types[int(s.byte())%len(types)],
		Scale: program.Scale{Num: s.number(), Den: s.number()},
	}
	if s.byte()%2 == 0 {
		m.Unit = "seconds"
	}
	for range 4 {
		m.Cells = append(m.Cells, program.Field{Size: 8, Signed: s.byte()%2 == 0})
	}
	f := &series.Family{Metric: m, Stride: 1}
	switch m.Type {
	case program.Info:
		f.Stride = 0
	case program.Summary:
		m.Quantiles = []float64{float64(s.byte()) / 255, 0.5}[:s.byte()%3]
		f.Stride = 2 + len(m.Quantiles)
	case program.StateSet:
		for range s.byte() % 4 {
			m.States = append(m.States, program.State{Name: s.text(), Value: int64(int8(s.byte()))})
		}
	case program.Histogram, program.GaugeHistogram:
		m.Buckets = &program.Buckets{Schema: int8(s.byte()), Low: int(int8(s.byte())), MaxClassic: int(int8(s.byte())), MaxNative: int(int8(s.byte())), NoNative: s.byte()%4 == 0}
		m.Buckets.High = m.Buckets.Low + int(s.byte()%5)
		if s.byte()%3 == 0 {
			for range s.byte() % 4 {
				m.Buckets.Bounds = append(m.Buckets.Bounds, s.number())
			}
		}
		if s.byte()%3 == 0 {
			m.Buckets.ClassicBounds = []float64{math.Float64frombits(s.number()), 1}
		}
		if s.byte()%3 == 0 {
			shown := int8(s.byte())
			m.Buckets.NativeSchema = &shown
		}
		if n, err := slotCount(m.Buckets); err == nil {
			f.Stride = 1 + n
		}
	}
	labelName := s.text()
	if labelName == "" || strings.ContainsAny(labelName, "=,") || labelName == "p" || labelName == "i" {
		labelName = "a"
	}
	m.Labels = []program.Label{{Name: labelName}}
	for i := range int(s.byte() % 4) {
		f.Points = append(f.Points, series.Point{Labels: labelText(labelName, s.text(), "i", string(rune('0'+i))), Start: int64(s.number() >> 20)})
		for range f.Stride {
			// Counts below 2^53 / slots: sums of a torn read are not the matter here.
			f.Values = append(f.Values, s.number())
		}
		f.Exemplars = append(f.Exemplars, series.Exemplar{Labels: labelText(labelName, s.text()), Value: s.number(), Timestamp: int64(s.number() >> 20)})
	}
	return f
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte("\x03abc\x01\x04help\x00"))
	f.Add([]byte("\x05a.b\n\"\x01\x04he\"p\x02\x01\x01\x01\x03\x02\x02\x02\x02\x00\x01\x01\x01\x01\x01\x02\x01\x03\x01\x01\x02abcdefgh\x03\x01\x02\x03\x01"))
	for typ := range byte(9) {
		f.Add([]byte{1, 'm', typ % 6, 1, 'h', typ, 1, 1, 1, 9, 0, 1, 0, 1, 0, 2, 1, 1, 3, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 'x', 'y', 'z', 1, 1, 1, 2, 1, 3, 1, 4, 1, 5})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := fuzzSource(data)
		var families []*series.Family
		for range 1 + source.byte()%3 {
			families = append(families, source.family())
		}
		escaping := []model.EscapingScheme{model.UnderscoreEscaping, model.DotsEscaping, model.ValueEncodingEscaping, model.NoEscaping}[source.byte()%4]
		groups, _ := Group(families)
		for _, syntax := range []Syntax{Text, OpenMetrics, Protobuf} {
			format := Format{Syntax: syntax, Escaping: escaping}
			var out strings.Builder
			w := NewWriter(&out, format, Options{CreatedSamples: source.byte()%2 == 0})
			for _, g := range groups {
				seen := map[string]bool{}
				for _, f := range g {
					for _, p := range f.Points {
						if seen[p.Labels] {
							return // equal series in two Programs are the agent's to refuse
						}
						seen[p.Labels] = true
					}
				}
				_ = w.Write(g)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := scrape(out.String(), format.ContentType()); err != nil && !acceptable(err) {
				t.Fatalf("%s: %v\n%s", format.ContentType(), err, out.String())
			}
		}
		if _, err := MetricFamilies(families); err != nil && !strings.Contains(err.Error(), ErrRefused.Error()) {
			t.Fatal(err)
		}
	})
}

// acceptable are complaints about what no reader of maps can avoid: counts that overflow 64 bits.
func acceptable(err error) bool {
	return strings.Contains(err.Error(), "observation")
}
