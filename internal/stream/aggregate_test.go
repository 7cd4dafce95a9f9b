package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

func newAggregate(t *testing.T, spec *program.Aggregate, metric *program.Metric) *Aggregate {
	t.Helper()
	a, err := NewAggregate(spec, metric)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// contents returns an aggregate's values as text by key.
func contents(a *Aggregate) map[string]string {
	got := map[string]string{}
	a.Each(func(key, value []byte, overflow bool) {
		name := fmt.Sprintf("%x", key)
		if overflow {
			name = "overflow"
		}
		var numbers []uint64
		for i := 0; i < len(value); i += 8 {
			numbers = append(numbers, binary.NativeEndian.Uint64(value[i:]))
		}
		got[name] = fmt.Sprint(numbers)
	})
	return got
}

func TestAggregate(t *testing.T) {
	keys := []program.Field{{Offset: 2, Size: 1}, {Offset: 0, Size: 1}}
	value := &program.Field{Offset: 4, Size: 2, BigEndian: true}
	records := [][]byte{{1, 9, 2, 9, 0, 7}, {1, 9, 2, 9, 1, 0}, {3, 9, 4, 9, 0, 0}, {1, 9}}
	f := func(spec program.Aggregate, metric program.Metric, want map[string]string) {
		t.Helper()
		a := newAggregate(t, &spec, &metric)
		for _, r := range records {
			a.Add(r)
		}
		if got := contents(a); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	one := []program.Field{{Size: 8}}
	f(program.Aggregate{Keys: keys}, program.Metric{Type: program.Counter, Cells: one},
		map[string]string{"0201": "[2]", "0403": "[1]"})
	f(program.Aggregate{Keys: keys, Value: value}, program.Metric{Type: program.Counter, Cells: one},
		map[string]string{"0201": "[263]", "0403": "[0]"})
	f(program.Aggregate{Value: value}, program.Metric{Type: program.Summary, Cells: []program.Field{{Size: 8}, {Offset: 8, Size: 8}}},
		map[string]string{"": "[3 263]"})
	f(program.Aggregate{Value: value}, program.Metric{Type: program.Histogram, Buckets: &program.Buckets{Bounds: []uint64{0, 7}},
		Cells: []program.Field{{Size: 8}, {Offset: 8, Size: 8, Count: 3}}},
		map[string]string{"": "[263 1 1 1]"})
}

// Keys beyond the bound are counted together, and nothing is lost.
func TestAggregateOverflow(t *testing.T) {
	a := newAggregate(t, &program.Aggregate{Keys: []program.Field{{Size: 4}}}, &program.Metric{Type: program.Counter, Cells: []program.Field{{Size: 8}}})
	var record [4]byte
	for i := range MaxKeys + 5 {
		binary.NativeEndian.PutUint32(record[:], uint32(i))
		a.Add(record[:])
	}
	got := contents(a)
	if len(got) != MaxKeys+1 || got["overflow"] != "[5]" {
		t.Errorf("%d keys, overflow %s", len(got), got["overflow"])
	}
	next := newAggregate(t, &a.spec, &a.metric)
	next.Add([]byte{0, 0, 0, 0})
	next.Adopt(a)
	if got := contents(next); got["00000000"] != "[2]" || got["overflow"] != "[5]" || len(contents(a)) != 0 {
		t.Errorf("adopted: %s, overflow %s", got["00000000"], got["overflow"])
	}
	if value := next.Remove([]byte{0, 0, 0, 0}); binary.NativeEndian.Uint64(value) != 2 || next.Remove([]byte{0, 0, 0, 0}) != nil {
		t.Errorf("removed %v", value)
	}
}

// Slots of whole numbers are exact, those of nanoseconds agree with their bounds.
func TestSlot(t *testing.T) {
	b := &program.Buckets{Schema: 0, Low: -1, High: 30}
	for n := range uint64(1 << 12) {
		slot := Slot(b, program.Scale{}, n)
		if upper := math.Ldexp(1, b.Low+slot); float64(n) > upper || slot > 0 && n > 0 && float64(n) <= upper/2 {
			t.Fatalf("%d is in slot %d, up to %g", n, slot, upper)
		}
	}
	seconds := program.Scale{Num: 1, Den: 1e9}
	b = &program.Buckets{Schema: 2, Low: -20, High: 6}
	last := (b.High-b.Low)<<b.Schema + 1
	for n := uint64(1); n < 1<<62; n += n/3 + 1 {
		slot := Slot(b, seconds, n)
		x := float64(n) / 1e9
		upper := math.Exp2(float64(b.Low) + float64(slot)/4)
		if slot != last && x > upper*(1+1e-12) || slot > 0 && slot != last && x <= upper/math.Exp2(0.25)*(1-1e-12) {
			t.Fatalf("%d ns is in slot %d, up to %g s", n, slot, upper)
		}
		if (slot == last) != (x > 64) {
			t.Fatalf("%d ns: overflow is %v", n, slot == last)
		}
	}
}

func FuzzAggregate(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, uint32(0), uint32(4), uint32(3), uint32(5), true)
	f.Fuzz(func(t *testing.T, record []byte, offset, size, bit, bits uint32, signed bool) {
		field := program.Field{Offset: offset % 64, Size: []uint32{1, 2, 4, 8}[size%4], Signed: signed, BitOffset: bit % 8, BitSize: bits % 9}
		a := newAggregate(t, &program.Aggregate{Keys: []program.Field{field}, Value: &field},
			&program.Metric{Type: program.Histogram, Buckets: &program.Buckets{Schema: 3, Low: -10, High: 10},
				Cells: []program.Field{{Size: 8}, {Offset: 8, Size: 8, Count: 162}}})
		a.Add(record)
		if got := len(contents(a)); got > 1 || got == 1 && len(record) < int(field.Offset+field.Size) {
			t.Fatalf("%d keys of a record of %d bytes", got, len(record))
		}
	})
}

// A hostile specification must neither panic when a record comes nor take the machine's memory.
func TestAggregateOfOddMetrics(t *testing.T) {
	f := func(metric program.Metric) {
		t.Helper()
		if _, err := NewAggregate(&program.Aggregate{}, &metric); !errors.Is(err, ErrMetric) {
			t.Errorf("got %v", err)
		}
	}
	f(program.Metric{Type: program.Counter})
	f(program.Metric{Type: program.Summary, Cells: []program.Field{{Size: 8}}})
	f(program.Metric{Type: program.Histogram, Cells: []program.Field{{Size: 8}, {Size: 8, Count: 5}}})
	f(program.Metric{Type: program.Histogram, Cells: []program.Field{{Size: 8}, {Size: 8, Count: 5}}, Buckets: &program.Buckets{High: 20}})
	f(program.Metric{Type: program.Histogram, Cells: []program.Field{{Size: 8}, {Size: 8, Count: 5}}, Buckets: &program.Buckets{High: 20, Schema: -1}})
	large := program.Metric{Type: program.Histogram, Cells: []program.Field{{Size: 8}, {Size: 8, Count: 2050}}, Buckets: &program.Buckets{Low: -32, High: 32, Schema: 5}}
	a := newAggregate(t, &program.Aggregate{}, &large)
	if bytes := a.Capacity() * 8 * 2051; bytes > maxBytes || a.Capacity() < 100 {
		t.Errorf("%d keys of %d bytes", a.Capacity(), 8*2051)
	}
}

// What is forgotten now and then is forgotten on time, whoever comes next.
func TestAggregateReset(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newAggregate(t, &program.Aggregate{Reset: time.Minute}, &program.Metric{Type: program.Counter, Cells: []program.Field{{Size: 8}}})
	a.clock, a.reset = func() time.Time { return now }, now.Add(time.Minute)
	f := func(after time.Duration, want string) {
		t.Helper()
		now = now.Add(after)
		a.Add(nil)
		if got := contents(a)[""]; got != want {
			t.Errorf("at %v: got %s, want %s", now.Unix()-1000, got, want)
		}
	}
	f(0, "[1]")
	f(59*time.Second, "[2]")
	f(time.Second, "[1]")
	f(150*time.Second, "[1]")
	f(29*time.Second, "[2]")
	now = now.Add(time.Second)
	if got := contents(a); len(got) != 0 {
		t.Errorf("after its time there is %v", got)
	}
}
