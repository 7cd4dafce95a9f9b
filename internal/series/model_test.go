package series

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// modelReader is a map in memory, so that many lives can be tried without a kernel.
type modelReader struct {
	entries map[string]uint64
	fail    bool
	reads   int
}

var errModel = errors.New("the model fails")

func (r *modelReader) open() (parts, error) { return parts{1, 8, 8}, nil }

func (r *modelReader) read(_ context.Context, yield func(keys, values []byte, n int)) error {
	r.reads++
	keys := slices.Sorted(maps.Keys(r.entries))
	if r.reads%3 == 0 {
		slices.Reverse(keys)
	}
	n := 0
	for _, k := range keys {
		v := r.entries[k]
		if n++; r.fail && n > len(r.entries)/2 {
			return errModel
		}
		yield([]byte(k), binary.LittleEndian.AppendUint64(nil, v), 1)
	}
	if r.fail {
		return errModel
	}
	return nil
}

func (r *modelReader) removes() bool { return true }

func (r *modelReader) remove(key []byte) ([]byte, error) {
	v, ok := r.entries[string(key)]
	if !ok {
		return nil, nil
	}
	delete(r.entries, string(key))
	return binary.LittleEndian.AppendUint64(nil, v), nil
}

// FuzzLife lets keys be born, count, start again, be renamed and vanish, and
// checks after each read, for three ways to label them: no series goes back without a new start;
// what lives is in the sum; nothing is in it twice.
func FuzzLife(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), uint8(3), uint8(200))
	f.Add([]byte{0, 1, 2, 255, 10, 11, 12, 255, 20, 21, 255, 40, 41, 255, 60, 61, 62, 255, 80, 255, 0, 1, 255, 255}, uint8(2), uint8(4))
	f.Fuzz(life)
}

// TestLife tries long lives.
func TestLife(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		ops := make([]byte, 50+r.IntN(500))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		life(t, ops, uint8(r.Uint32()), uint8(r.Uint32()))
		if t.Failed() {
			return
		}
	}
}

func life(t *testing.T, ops []byte, limit, foldLimit uint8) {
	key := []program.Label{label("workload", "workload", 0, 8), label("op", "uint", 8, 1)}
	spec := oneMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 9, ValueSize: 8, MaxEntries: 100},
		program.Metric{Name: "all_total", Limit: int(limit)%8 + 1}, key...)
	r := &spec.Readers[0]
	for i, labels := range [][]program.Label{key[:1], key[1:], {}} {
		m := r.Metrics[0]
		m.Name, m.Labels = fmt.Sprintf("sum%d_total", i), labels
		r.Metrics = append(r.Metrics, m)
	}
	resolver := newFakeResolver()
	now := started
	c, err := NewCollector(spec, &fakeSource{}, Options{Resolver: resolver, Started: started})
	if err != nil {
		t.Fatal(err)
	}
	model := &modelReader{entries: map[string]uint64{}}
	c.readers[0].reader = model
	for _, t := range c.readers[0].tables {
		t.foldLimit = int(foldLimit)%16 + 1
	}
	c.options.Clock = func() time.Time { now = now.Add(time.Second); return now }
	counted := uint64(0) // ever
	last := map[string]sample{}
	read := func() {
		s, err := c.Collect(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		if model.fail {
			if len(s.Errors) != 1 || len(s.Families) != 0 {
				t.Fatalf("a failed read showed %d families", len(s.Families))
			}
			return
		}
		live := uint64(0)
		for _, v := range model.entries {
			live += v
		}
		now := map[string]sample{}
		for i := range s.Families {
			f := &s.Families[i]
			total := uint64(0)
			for l, p := range samples(t, f) {
				name := f.Metric.Name + "{" + l + "}"
				now[name] = p
				total += p.row[0]
				if was, ok := last[name]; ok && p.row[0] < was.row[0] && p.start <= was.start {
					t.Fatalf("%s went back from %d to %d", name, was.row[0], p.row[0])
				}
			}
			if total < live || total > counted {
				t.Fatalf("%s: the series sum up to %d, alive are %d, ever counted %d", f.Metric.Name, total, live, counted)
			}
		}
		last = now
	}
	for _, op := range ops {
		id, kind := uint64(op&3)+1, op>>2&1
		k := string(append(binary.LittleEndian.AppendUint64(nil, id), kind))
		switch n := op >> 3; {
		case n < 14:
			model.entries[k] += uint64(n) + 1
			counted += uint64(n) + 1
		case n < 18:
			delete(model.entries, k)
		case n < 20:
			model.entries[k] = uint64(n) // deleted and made again
			counted += uint64(n)
		case n < 26:
			// Names that two ids may share, and states.
			resolver.set(workload.ID(id), string('a'+rune(n&1)), workload.State(n%3))
		case n < 28:
			model.fail = true
			read()
			model.fail = false
		default:
			read()
		}
	}
	read()
	read()
}
