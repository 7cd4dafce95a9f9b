package series

import (
	"sort"

	"github.com/kaon-project/kaon/internal/program"
)

// spread tells the slot's number in a key from the rest.
type spread struct {
	program.Spread
	slots int // without the one above all bounds
	sum   int64
	key   []byte // the latest, with zeros for the number
}

func newSpread(r *program.Reader, m *program.Metric) *spread {
	s := &spread{Spread: *r.Spread, slots: m.Buckets.Slots() - 1, key: make([]byte, r.KeySize)}
	s.sum = int64(s.Sum)
	return s
}

// split returns a key without its slot's number, valid until the next call, and the number's place in a
// histogram's row: 0 is the sum, then come the slots.
func (s *spread) split(key []byte) (rest []byte, place int) {
	copy(s.key, key)
	if number := s.Bucket.Bytes(s.key); number != nil {
		clear(number)
	}
	return s.key, s.place(s.Bucket.Number(key))
}

func (s *spread) place(raw uint64) int {
	if s.Numbers != nil {
		n := float64(raw)
		if s.Bucket.Signed {
			n = float64(int64(raw))
		}
		if n == s.Sum {
			return 0
		}
		return 1 + sort.SearchFloat64s(s.Numbers, n)
	}
	if !s.Bucket.Signed && int64(raw) < 0 {
		return 1 + s.slots
	}
	n := int64(raw)
	if n == s.sum {
		return 0
	}
	return 1 + int(min(max(n, s.First)-s.First, int64(s.slots)))
}
