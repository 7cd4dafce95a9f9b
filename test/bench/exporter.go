package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/test/sandbox"
)

const exporterConfiguration, nativeManifest = "test/bench/testdata/exporter.yaml", "test/bench/testdata/native.yaml"

// Sizes of the maps of exporter.bpf.c.
const (
	exporterSeries     = 10_000
	exporterHistograms = 1000
	exporterBuckets    = 27 // and one more key for the sum
)

// measureExporter measures what it costs that maps are read as a configuration of ebpf_exporter says, beside a manifest.
func measureExporter(ctx context.Context, o options) (figures []figure, err error) {
	s, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	start := func(source string) (*sandbox.Agent, error) {
		a, err := s.up(o, "./"+source)
		if err != nil {
			return nil, err
		}
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := a.WaitServing(waiting); err != nil {
			stop(a, &err)
			return nil, err
		}
		return a, nil
	}
	configuration, err := start(exporterConfiguration)
	if err != nil {
		return nil, err
	}
	defer stop(configuration, &err)
	manifest, err := start(nativeManifest)
	if err != nil {
		return nil, err
	}
	defer stop(manifest, &err)
	if err := fillExporter(configuration, manifest); err != nil {
		return nil, err
	}
	counters := figure{what: fmt.Sprintf("scrape %d series of a configuration of ebpf_exporter, CPU per series", exporterSeries), unit: "µs",
		baselineName: "the same map by a manifest", atLeast: 0.83}
	histograms := figure{what: fmt.Sprintf("scrape %d histograms whose %d buckets are keys, CPU per histogram", exporterHistograms, exporterBuckets), unit: "µs",
		baselineName: "the same by arrays of slots"}
	for _, f := range []struct {
		figure *figure
		metric string
		n      int
	}{{&counters, "ebpf_exporter_bench_total", exporterSeries}, {&histograms, "ebpf_exporter_bench_seconds", exporterHistograms}} {
		path := "/metrics?name[]=" + f.metric
		// The first scrapes render the labels.
		for range 3 {
			for _, a := range []*sandbox.Agent{configuration, manifest} {
				if _, err := scrapePath(a, path, 1, ""); err != nil {
					return nil, err
				}
			}
		}
		for range o.repeats {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			ours, err := scrapePath(configuration, path, o.scrapes, "")
			if err != nil {
				return nil, err
			}
			base, err := scrapePath(manifest, path, o.scrapes, "")
			if err != nil {
				return nil, err
			}
			if ours.bytes < f.n*40 || base.bytes < f.n*40 {
				return nil, fmt.Errorf("%s: a scrape has %d bytes, by the manifest %d", f.metric, ours.bytes, base.bytes)
			}
			f.figure.samples = append(f.figure.samples, ours.cpu/float64(f.n)/1000)
			f.figure.baseline = append(f.figure.baseline, base.cpu/float64(f.n)/1000)
		}
	}
	counters.note = "the target is at most a fifth more than the manifest"
	histograms.note = fmt.Sprintf("%d keys of the map are read for each, instead of one", exporterBuckets+1)
	return []figure{counters, histograms}, nil
}

// fillExporter fills the maps of both agents alike.
func fillExporter(configuration, manifest *sandbox.Agent) error {
	for _, a := range []*sandbox.Agent{configuration, manifest} {
		id, err := mapID(a, "bench_total")
		if err != nil {
			return err
		}
		if err := fill(id, exporterSeries); err != nil {
			return err
		}
	}
	id, err := mapID(configuration, "bench_seconds")
	if err != nil {
		return err
	}
	var keys [][8]byte
	var values []uint64
	for shard := range exporterHistograms {
		for bucket := range exporterBuckets + 1 {
			var key [8]byte
			binary.LittleEndian.PutUint32(key[:], uint32(shard))
			binary.LittleEndian.PutUint32(key[4:], uint32(bucket))
			keys, values = append(keys, key), append(values, uint64(shard*bucket))
		}
	}
	if err := put(id, keys, values); err != nil {
		return err
	}
	if id, err = mapID(manifest, "bench_slots"); err != nil {
		return err
	}
	shards, slots := make([]uint32, exporterHistograms), make([][29]uint64, exporterHistograms)
	for shard := range shards {
		shards[shard] = uint32(shard)
		for bucket := range exporterBuckets {
			slots[shard][1+bucket] = uint64(shard * bucket)
		}
		slots[shard][0] = uint64(shard * exporterBuckets)
	}
	return put(id, shards, slots)
}

func put[K, V any](id uint32, keys []K, values []V) error {
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return fmt.Errorf("open the map: %w", err)
	}
	defer m.Close()
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("fill the map: %w", err)
	}
	return nil
}
