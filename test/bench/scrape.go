package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/test/sandbox"
)

const seriesObject, watchObject = "test/bench/testdata/series.bpf.o", "test/bench/testdata/watch.bpf.o"

// stage is where an agent is measured: one cgroup that it lives in and another that it observes.
type stage struct {
	home, observed *sandbox.Cgroup
}

func newStage() (*stage, error) {
	home, err := sandbox.NewCgroup("bench-home")
	if err != nil {
		return nil, err
	}
	observed, err := sandbox.NewCgroup("bench-observed")
	if err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	return &stage{home, observed}, nil
}

func (s *stage) close() error { return errors.Join(s.home.Remove(), s.observed.Remove()) }

// up starts `kaon up` with arguments.
func (s *stage) up(o options, arguments ...string) (*sandbox.Agent, error) {
	address, err := sandbox.FreeAddress()
	if err != nil {
		return nil, err
	}
	command := exec.Command(o.binary, append([]string{"up", "--listen", address, "--cgroup-root", s.observed.Path, "--log-level", "warn"}, arguments...)...)
	s.home.Put(command)
	return sandbox.Start(command, address)
}

// baseline starts this executable as an exporter without Kaon, of the map with an id (0: none).
func (s *stage) baseline(id uint32) (*sandbox.Agent, error) {
	address, err := sandbox.FreeAddress()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "-serve", strconv.Itoa(int(id)), "-address", address)
	s.home.Put(command)
	return sandbox.Start(command, address)
}

func stop(a *sandbox.Agent, err *error) {
	*err = errors.Join(*err, a.Stop(15, 10*time.Second))
}

func measureScrapes(ctx context.Context, o options) (figures []figure, err error) {
	s, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, n := range []int{1000, 100_000} {
		more, err := measureScrape(ctx, o, s, n)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

func measureScrape(ctx context.Context, o options, s *stage, n int) (figures []figure, err error) {
	watch, err := newWatch(ctx, s.home)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	kaon, err := s.up(o, "--profiling", "./"+seriesObject)
	if err != nil {
		return nil, err
	}
	defer stop(kaon, &err)
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := kaon.WaitServing(waiting); err != nil {
		return nil, err
	}
	id, err := mapID(kaon, "bench_total")
	if err != nil {
		return nil, err
	}
	heapBefore, err := liveHeap(kaon)
	if err != nil {
		return nil, err
	}
	if err := fill(id, n); err != nil {
		return nil, err
	}
	theirs, err := s.baseline(id)
	if err != nil {
		return nil, err
	}
	defer stop(theirs, &err)
	if _, err := theirs.WaitServing(waiting); err != nil {
		return nil, err
	}

	name := fmt.Sprintf("%d series", n)
	plain := figure{what: "scrape " + name + ", text, CPU per series", unit: "µs", baselineName: "iterate, MustNewConstMetric, promhttp"}
	zipped := figure{what: "scrape " + name + ", text with gzip, CPU per series", unit: "µs", baselineName: "iterate, MustNewConstMetric, promhttp"}
	wall := figure{what: "scrape " + name + ", text, time", unit: "ms", baselineName: "iterate, MustNewConstMetric, promhttp"}
	calls := figure{what: "scrape " + name + ", calls of bpf()", unit: "", baselineName: "iterate, MustNewConstMetric, promhttp"}
	heap := figure{what: "heap held for " + name, unit: "MB"}
	switch n {
	case 1000:
		wall.atMost = 2
	case 100_000:
		plain.atMost, calls.atMost, heap.atMost = 0.6, 200, 20
	}
	size := 0
	// The first scrapes render the labels.
	for range 3 {
		if _, err := scrape(kaon, 1, ""); err != nil {
			return nil, err
		}
	}
	for range o.repeats {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		before, err := watch.count(ctx, "bpf_calls_total")
		if err != nil {
			return nil, err
		}
		ours, err := scrape(kaon, o.scrapes, "")
		if err != nil {
			return nil, err
		}
		between, err := watch.count(ctx, "bpf_calls_total")
		if err != nil {
			return nil, err
		}
		base, err := scrape(theirs, 1, "")
		if err != nil {
			return nil, err
		}
		after, err := watch.count(ctx, "bpf_calls_total")
		if err != nil {
			return nil, err
		}
		oursZipped, err := scrape(kaon, o.scrapes, "gzip")
		if err != nil {
			return nil, err
		}
		baseZipped, err := scrape(theirs, 1, "gzip")
		if err != nil {
			return nil, err
		}
		size = ours.bytes
		perSeries := func(c cost) float64 { return c.cpu / float64(n) / 1000 }
		plain.samples, plain.baseline = append(plain.samples, perSeries(ours)), append(plain.baseline, perSeries(base))
		zipped.samples, zipped.baseline = append(zipped.samples, perSeries(oursZipped)), append(zipped.baseline, perSeries(baseZipped))
		wall.samples, wall.baseline = append(wall.samples, ours.wall/1e6), append(wall.baseline, base.wall/1e6)
		calls.samples, calls.baseline = append(calls.samples, (between-before)/float64(o.scrapes)), append(calls.baseline, after-between)
		live, err := liveHeap(kaon)
		if err != nil {
			return nil, err
		}
		heap.samples = append(heap.samples, (live-heapBefore)/1e6)
	}
	heap.note = fmt.Sprintf("after garbage collection, more than before the map was filled; from the first repeat to the last it went from %.2f to %.2f MB", heap.samples[0], heap.samples[len(heap.samples)-1])
	plain.note = fmt.Sprintf("%d bytes per scrape", size)
	return []figure{plain, zipped, wall, calls, heap}, nil
}

// cost of one scrape, in nanoseconds.
type cost struct {
	cpu, wall float64
	bytes     int
}

func scrape(a *sandbox.Agent, times int, encoding string) (cost, error) {
	return scrapePath(a, "/metrics", times, encoding)
}

func scrapePath(a *sandbox.Agent, path string, times int, encoding string) (cost, error) {
	var c cost
	before, err := a.CPU()
	if err != nil {
		return c, err
	}
	begun := time.Now()
	for range times {
		code, body, _, err := a.Get(path, "Accept-Encoding", encoding)
		if err != nil || code != http.StatusOK {
			return c, fmt.Errorf("scrape: %d %w", code, err)
		}
		c.bytes = len(body)
	}
	c.wall = float64(time.Since(begun)) / float64(times)
	after, err := a.CPU()
	c.cpu = float64(after-before) / float64(times)
	return c, err
}

// liveHeap makes the agent collect its garbage and returns what is left, in bytes.
func liveHeap(a *sandbox.Agent) (float64, error) {
	for range 2 {
		if code, _, _, err := a.Get("/debug/pprof/heap?gc=1"); err != nil || code != http.StatusOK {
			return 0, fmt.Errorf("make the agent collect garbage: %d %w", code, err)
		}
	}
	_, body, _, err := a.Get("/metrics?name[]=go_memstats_heap_alloc_bytes")
	if err != nil {
		return 0, err
	}
	x, ok := sandbox.Sample(body, "go_memstats_heap_alloc_bytes")
	if !ok {
		return 0, errors.New("the agent does not tell its heap")
	}
	return x, nil
}

func mapID(a *sandbox.Agent, name string) (uint32, error) {
	// Maps are listed once they were read.
	status, err := a.Status()
	if err != nil {
		return 0, err
	}
	for _, s := range status {
		for _, m := range s.Maps {
			if m.Name == name && m.ID != 0 {
				return m.ID, nil
			}
		}
	}
	return 0, fmt.Errorf("the agent has no map %s: %s", name, a.Log())
}

// fill inserts n keys of two u32 and 16 bytes of text.
func fill(id uint32, n int) error {
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return fmt.Errorf("open the map: %w", err)
	}
	defer m.Close()
	keys, values := make([][24]byte, n), make([]uint64, n)
	for i := range keys {
		binary.LittleEndian.PutUint32(keys[i][:], uint32(i))
		binary.LittleEndian.PutUint32(keys[i][4:], uint32(i%100))
		copy(keys[i][8:], fmt.Sprintf("process-%d", i%1000))
		values[i] = uint64(i) * 12345
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("fill the map: %w", err)
	}
	return nil
}

// watch observes with Kaon what an agent asks the kernel for.
type watch struct {
	*agent.Agent
}

func newWatch(ctx context.Context, home *sandbox.Cgroup) (*watch, error) {
	a, err := agent.New(agent.Options{CgroupRoot: home.Path})
	if err != nil {
		return nil, err
	}
	if err := a.Apply(ctx, agent.Config{Programs: []agent.ProgramConfig{{Source: "./" + watchObject}}}); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	if err := a.Ready(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &watch{a}, nil
}

// count sums a counter over its series.
func (w *watch) count(ctx context.Context, metric string) (float64, error) {
	snapshot := w.Gather(ctx, func(name string) bool { return name == metric })
	defer snapshot.Release()
	sum := 0.0
	for _, f := range snapshot.Families {
		for _, value := range f.Values {
			sum += float64(value)
		}
	}
	return sum, snapshot.Err
}

// serveBaseline is an exporter as one writes it with cilium/ebpf and client_golang.
func serveBaseline(ctx context.Context, id, address string) error {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if n != 0 {
		m, err := ebpf.NewMapFromID(ebpf.MapID(n))
		if err != nil {
			return err
		}
		defer m.Close()
		registry.MustRegister(iterating{m, prometheus.NewDesc("bench_total", "A counter with 24 bytes of key.", []string{"first", "second", "name"}, nil)})
	}
	server := &http.Server{Addr: address, Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type iterating struct {
	m    *ebpf.Map
	desc *prometheus.Desc
}

func (c iterating) Describe(out chan<- *prometheus.Desc) { out <- c.desc }
func (c iterating) Collect(out chan<- prometheus.Metric) {
	var key struct {
		First, Second uint32
		Name          [16]byte
	}
	var value uint64
	entries := c.m.Iterate()
	for entries.Next(&key, &value) {
		if key.First == math.MaxUint32 {
			continue // Kaon's overflow entry
		}
		end := 0
		for end < len(key.Name) && key.Name[end] != 0 {
			end++
		}
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(value),
			strconv.FormatUint(uint64(key.First), 10), strconv.FormatUint(uint64(key.Second), 10), string(key.Name[:end]))
	}
	if err := entries.Err(); err != nil {
		out <- prometheus.NewInvalidMetric(c.desc, err)
	}
}
