package series

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// blockedIterator yields one record with its number of opening, when the test lets it.
type blockedIterator struct {
	opened  atomic.Uint64
	entered chan struct{}
	release chan struct{}
}

func (b *blockedIterator) open() (io.ReadCloser, error) {
	n := b.opened.Add(1)
	b.entered <- struct{}{}
	<-b.release
	return records(key32(1, uint32(n), 0)), nil
}

func iteratorSpec(metric program.Metric) *program.Spec {
	metric.Name = "test"
	if metric.Type == "" {
		metric.Type = program.Gauge
	}
	metric.Cells = []program.Field{u64(0)}
	key := []program.Label{label("a", "uint", 0, 4)}
	metric.Labels = key
	return &program.Spec{Name: "test", Readers: []program.Reader{{Name: "it", Kind: program.IteratorReader, Function: "fn",
		KeySize: 4, ValueSize: 8, Key: key, Metrics: []program.Metric{metric}}}}
}

func TestConcurrentCallersShareAReading(t *testing.T) {
	b := &blockedIterator{entered: make(chan struct{}, 100), release: make(chan struct{}, 100)}
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": b.open}}
	c, err := NewCollector(iteratorSpec(program.Metric{}), source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[uint64]int{}
	var wg sync.WaitGroup
	ask := func() {
		wg.Go(func() {
			s, err := c.Collect(context.Background(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			got[s.Families[0].Values[0]]++
			mu.Unlock()
			s.Release()
		})
	}
	ask()
	<-b.entered
	// While the first reads, ten more come: they must not get what it reads.
	for range 10 {
		ask()
	}
	for {
		c.mu.Lock()
		waiting := c.next != nil && c.next.callers == 10
		c.mu.Unlock()
		if waiting {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.release <- struct{}{}
	<-b.entered
	b.release <- struct{}{}
	wg.Wait()
	if got[1] != 1 || got[2] != 10 || len(got) != 2 {
		t.Errorf("callers by reading: %v, want 1 and 10", got)
	}
}

func TestACallerThatGivesUp(t *testing.T) {
	b := &blockedIterator{entered: make(chan struct{}, 100), release: make(chan struct{}, 100)}
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": b.open}}
	c, err := NewCollector(iteratorSpec(program.Metric{}), source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := c.Collect(ctx, nil)
		done <- err
	}()
	<-b.entered
	cancel()
	// The reading still hangs, its caller does not.
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.release <- struct{}{}
	b.release <- struct{}{}
	s, err := c.Collect(context.Background(), nil)
	if err != nil || len(s.Errors) > 0 {
		t.Fatal(err, s.Errors)
	}
	s.Release()
	c.Close()
	if _, err := c.Collect(context.Background(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed collector: %v", err)
	}
}

// One who gives up while waiting leaves the reading to those who join after.
func TestAWaitingCallerThatGivesUp(t *testing.T) {
	b := &blockedIterator{entered: make(chan struct{}, 100), release: make(chan struct{}, 100)}
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": b.open}}
	c, err := NewCollector(iteratorSpec(program.Metric{}), source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	collect := func() {
		wg.Go(func() {
			s, err := c.Collect(context.Background(), nil)
			if err != nil || len(s.Errors) > 0 {
				t.Error(err)
				return
			}
			s.Release()
		})
	}
	collect()
	<-b.entered
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	if _, err := c.Collect(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	collect()
	for {
		c.mu.Lock()
		joined := c.next != nil && c.next.callers == 1
		c.mu.Unlock()
		if joined {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.release <- struct{}{}
	b.release <- struct{}{}
	wg.Wait()
}

// endless is an iterator that does not come to an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return copy(b, key32(1, 1, 0)), nil
}

func TestDeadlineFailsTheReaderAlone(t *testing.T) {
	ms := hashSpec(4, 8, 10)
	m := newMap(t, ms)
	spec := oneMap(ms, program.Metric{}, label("a", "uint", 0, 4))
	late := iteratorSpec(program.Metric{}).Readers[0]
	spec.Readers = append(spec.Readers, late)
	f := newFixtureOf(t, m, spec)
	f.source.records = map[string]func() (io.ReadCloser, error){"fn": func() (io.ReadCloser, error) {
		return io.NopCloser(endless{}), nil
	}}
	f.put(key32(1), uint64(1))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := f.collector.Collect(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if len(s.Families) != 1 || s.Families[0].Metric.Name != "test_total" {
		t.Errorf("families: %v", s.Families)
	}
	if len(s.Errors) != 1 || s.Errors[0].Reader != "it" || !errors.Is(s.Errors[0], context.DeadlineExceeded) {
		t.Errorf("errors: %v", s.Errors)
	}
}

func TestConcurrentScrapesOfAMap(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 2000), program.Metric{}, label("a", "uint", 0, 4))
	f.collector.options.Clock = time.Now
	for i := range uint32(2000) {
		f.put(key32(i), uint64(i))
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 20 {
				s, err := f.collector.Collect(context.Background(), nil)
				if err != nil || len(s.Errors) > 0 {
					t.Error(err)
					return
				}
				fam := &s.Families[0]
				if len(fam.Points) != 2000 {
					t.Errorf("%d series", len(fam.Points))
				}
				for i, p := range fam.Points {
					if want := fmt.Sprintf(`a="%d"`, fam.Row(i)[0]); p.Labels != want {
						t.Errorf("series {%s} has the value of {%s}", p.Labels, want)
						break
					}
				}
				s.Release()
			}
		})
	}
	wg.Wait()
}

// Who has less time than others of the same reading gets what was read by then, and is told what is missing.
func TestDeadlinesOfOneReadingDiffer(t *testing.T) {
	ms := hashSpec(4, 8, 10)
	m := newMap(t, ms)
	spec := oneMap(ms, program.Metric{}, label("a", "uint", 0, 4))
	spec.Readers = append(spec.Readers, iteratorSpec(program.Metric{}).Readers[0])
	f := newFixtureOf(t, m, spec)
	b := &blockedIterator{entered: make(chan struct{}, 100), release: make(chan struct{}, 100)}
	f.source.records = map[string]func() (io.ReadCloser, error){"fn": b.open}
	f.put(key32(1), uint64(1))

	// The first holds the collector until both others wait for the same reading.
	var wg sync.WaitGroup
	collect := func(timeout time.Duration, want func(string) bool, families, failures int) {
		wg.Go(func() {
			ctx := context.Background()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			s, err := f.collector.Collect(ctx, want)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Release()
			if len(s.Families) != families || len(s.Errors) != failures {
				t.Errorf("with %v: %d families, errors %v; want %d and %d", timeout, len(s.Families), s.Errors, families, failures)
			}
			for _, e := range s.Errors {
				if e.Reader != "it" || !errors.Is(e, context.DeadlineExceeded) {
					t.Errorf("error of %s: %v", e.Reader, e)
				}
			}
			for i := range s.Families {
				if s.Families[i].Row(0)[0] == 0 {
					t.Error("a value is missing")
				}
			}
		})
	}
	waiting := func(n int) {
		for {
			f.collector.mu.Lock()
			ok := f.collector.next != nil && f.collector.next.callers == n
			f.collector.mu.Unlock()
			if ok {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	collect(0, nil, 2, 0)
	<-b.entered
	collect(0, nil, 2, 0)
	waiting(1)
	collect(5*time.Second, nil, 1, 1)
	waiting(2)
	collect(5*time.Second, func(name string) bool { return name == "test_total" }, 1, 0)
	waiting(3)
	b.release <- struct{}{}
	<-b.entered
	time.Sleep(5500 * time.Millisecond) // both deadlines pass
	b.release <- struct{}{}
	wg.Wait()
	// The memory comes back, if not at once.
	for _, r := range f.collector.readers {
		for back := false; !back; time.Sleep(time.Millisecond) {
			f.collector.mu.Lock()
			back = len(r.tables[0].free) > 0
			f.collector.mu.Unlock()
		}
	}
}
