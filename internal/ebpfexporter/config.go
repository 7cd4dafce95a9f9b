package ebpfexporter

import (
	"time"
)

// config is a configuration as it is written. Every part knows where it stands.
type config struct {
	counters   []counter
	histograms []histogram
	kaddrs     []located
	cgroups    *cgroupIDMap
	spans      []span
}

// place is where something stands, for messages: "tcp.yaml:12: metrics.counters[0].name".
type place string

type located struct {
	place
	text string
}

type counter struct {
	place
	name, help    string
	perfEvents    bool
	flushInterval time.Duration
	labels        []label
}

type histogram struct {
	place
	name, help string
	bucketType string
	multiplier float64
	min, max   int64
	keys       []float64
	labels     []label
}

type label struct {
	place
	name          string
	size, padding uint32
	decoders      []decoder
}

type decoder struct {
	place
	name         string
	staticMap    map[string]string
	allowUnknown bool
	regexps      []string
}

type cgroupIDMap struct {
	place
	name, kind string
	regexps    []string
}

type span struct {
	place
	ringbuf, name, service string
	labels                 []label
}

func (r *reading) config(c *config) fields {
	return fields{
		"name": ignored,
		"metrics": r.mapping(fields{
			"counters": r.list(func(i item) {
				c.counters = append(c.counters, counter{place: i.place})
				r.decode(i, r.counter(&c.counters[len(c.counters)-1]))
			}),
			"histograms": r.list(func(i item) {
				c.histograms = append(c.histograms, histogram{place: i.place, multiplier: 1})
				r.decode(i, r.histogram(&c.histograms[len(c.histograms)-1]))
			}),
		}),
		"kaddrs": r.list(func(i item) {
			c.kaddrs = append(c.kaddrs, located{place: i.place})
			r.text(&c.kaddrs[len(c.kaddrs)-1].text)(i)
		}),
		"cgroup_id_map": func(i item) {
			c.cgroups = &cgroupIDMap{place: i.place}
			r.decode(i, fields{
				"name": r.text(&c.cgroups.name), "type": r.text(&c.cgroups.kind), "regexps": r.texts(&c.cgroups.regexps),
			})
		},
		"tracing": r.mapping(fields{
			"spans": r.list(func(i item) {
				c.spans = append(c.spans, span{place: i.place})
				s := &c.spans[len(c.spans)-1]
				r.decode(i, fields{
					"ringbuf": r.text(&s.ringbuf), "name": r.text(&s.name), "service": r.text(&s.service), "labels": r.labels(&s.labels),
				})
			}),
		}),
	}
}

func (r *reading) counter(c *counter) fields {
	return fields{
		"name": r.text(&c.name), "help": r.text(&c.help), "perf_event_array": r.boolean(&c.perfEvents),
		"flush_interval": r.duration(&c.flushInterval), "labels": r.labels(&c.labels),
	}
}

func (r *reading) histogram(h *histogram) fields {
	return fields{
		"name": r.text(&h.name), "help": r.text(&h.help), "bucket_type": r.text(&h.bucketType),
		"bucket_multiplier": r.float(&h.multiplier), "bucket_min": r.integer(&h.min), "bucket_max": r.integer(&h.max),
		"bucket_keys": r.list(func(i item) {
			h.keys = append(h.keys, 0)
			r.float(&h.keys[len(h.keys)-1])(i)
		}),
		"labels": r.labels(&h.labels),
	}
}

func (r *reading) labels(list *[]label) func(item) {
	return r.list(func(i item) {
		*list = append(*list, label{place: i.place})
		l := &(*list)[len(*list)-1]
		r.decode(i, fields{
			"name": r.text(&l.name), "size": r.size(&l.size), "padding": r.size(&l.padding),
			"decoders": r.list(func(i item) {
				l.decoders = append(l.decoders, decoder{place: i.place})
				d := &l.decoders[len(l.decoders)-1]
				r.decode(i, fields{
					"name": r.text(&d.name), "static_map": r.table(&d.staticMap),
					"allow_unknown": r.boolean(&d.allowUnknown), "regexps": r.texts(&d.regexps),
				})
			}),
		})
	})
}
