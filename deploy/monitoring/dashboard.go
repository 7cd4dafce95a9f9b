// Package monitoring is Kaon's Grafana dashboard and its alerts for Prometheus, as code. `go test ./deploy/monitoring
// -update` writes what is committed beside it.
package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Dashboard is what Grafana shows.
type Dashboard struct {
	UID, Title, Help string
	// Tags by which it is found.
	Tags []string
	// Refresh is how often it is drawn again, Span how much time it shows: "30s", "1h".
	Refresh, Span string
	Variables     []variable
	Rows          []Row
}

// Row is a section. All but the first of a dashboard are folded, and ask nothing until somebody opens them.
type Row struct {
	Title string
	// Area of the library that it shows, "" if it shows several or none.
	Area   string
	Panels []Panel
}

// Panel is one diagram.
type Panel struct {
	Title string
	// Help says what it tells and what a bad value looks like.
	Help string
	Kind Kind
	// Unit as Grafana calls it: "s", "ops", "Bps", "percentunit", "bytes", "short".
	Unit string
	// Bad is the value from which on a Stat is red; 0: never.
	Bad     float64
	Queries []Query
	// Width of 24 columns; 0: a third.
	Width int
	// Stacked puts the values of a TimeSeries on top of each other.
	Stacked bool
	// Names are what the values 0, 1, 2 ... of a Stat are called; nil: they are numbers.
	Names []string
}

// Kind of a panel, in Grafana's words.
type Kind string

// Kinds of panels.
const (
	TimeSeries Kind = "timeseries"
	Stat       Kind = "stat"
	Table      Kind = "table"
	BarGauge   Kind = "bargauge"
)

// Query is PromQL, with Grafana's variables, and how its series are called.
type Query struct{ Expr, Legend string }

const (
	columns     = 24
	panelHeight = 8
	statHeight  = 4
)

// variable is a label whose values can be chosen.
type variable struct {
	label string
	// metrics that have it, any of which is enough: a machine may not run all programs.
	metrics []string
	// within are the variables before it, by whose choice its values are narrowed down.
	within []string
}

// filter keeps what was chosen.
func (v variable) filter() string { return fmt.Sprintf("%[1]s=~\"$%[1]s\"", v.label) }

// query asks Prometheus for the values.
func (v variable) query() string {
	if len(v.metrics) == 1 && len(v.within) == 0 {
		return fmt.Sprintf("label_values(%s, %s)", v.metrics[0], v.label)
	}
	matchers := []string{fmt.Sprintf("__name__=~%q", strings.Join(v.metrics, "|"))}
	for _, label := range v.within {
		matchers = append(matchers, variable{label: label}.filter())
	}
	return fmt.Sprintf("label_values({%s}, %s)", strings.Join(matchers, ","), v.label)
}

// variables are labels by which everything of the library is filtered. What has no such label is shown, too, unless a value is chosen: namespace, pod
// and container exist on Kubernetes, unit and cgroup elsewhere.
func variables() []variable {
	// Default programs of different needs: threads that there are, CPU time, program starts.
	workloads := []string{"tasks", "oncpu_seconds_total", "process_starts_total"}
	return []variable{
		{label: "instance", metrics: []string{"kaon_build_info"}},
		{label: "namespace", metrics: workloads, within: []string{"instance"}},
		{label: "pod", metrics: workloads, within: []string{"instance", "namespace"}},
		{label: "container", metrics: workloads, within: []string{"instance", "namespace", "pod"}},
		{label: "unit", metrics: workloads, within: []string{"instance"}},
		{label: "cgroup", metrics: workloads, within: []string{"instance"}},
	}
}

type fields = map[string]any

// JSON returns the dashboard as Grafana imports it.
func (d *Dashboard) JSON() ([]byte, error) {
	id, y := 0, 0
	next := func() int { id++; return id }
	var panels []fields
	for i, row := range d.Rows {
		collapsed := i > 0
		header := fields{"id": next(), "type": "row", "title": row.Title, "collapsed": collapsed,
			"gridPos": fields{"x": 0, "y": y, "w": columns, "h": 1}, "panels": []fields{}}
		begin := y
		y++
		var inside []fields
		x, height := 0, 0
		for _, p := range row.Panels {
			w, h := p.Width, panelHeight
			if w == 0 {
				w = columns / 3
			}
			if p.Kind == Stat {
				h = statHeight
			}
			if x+w > columns {
				x, y, height = 0, y+height, 0
			}
			inside = append(inside, p.fields(next(), fields{"x": x, "y": y, "w": w, "h": h}))
			x, height = x+w, max(height, h)
		}
		if collapsed { // it takes no room until it is opened, and then pushes the others down
			header["panels"] = inside
			panels = append(panels, header)
			y = begin + 1
		} else {
			panels = append(append(panels, header), inside...)
			y += height
		}
	}
	list := []fields{{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": fields{}, "hide": 0}}
	for _, v := range d.Variables {
		list = append(list, fields{"name": v.label, "type": "query", "datasource": datasource(), "query": fields{"query": v.query(), "refId": v.label},
			"definition": v.query(), "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*", "current": fields{"text": "All", "value": "$__all"}})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(fields{
		"uid": d.UID, "title": d.Title, "description": d.Help, "tags": d.Tags, "schemaVersion": 39, "version": 1,
		"editable": true, "graphTooltip": 1, "refresh": d.Refresh, "time": fields{"from": "now-" + d.Span, "to": "now"}, "timezone": "",
		"templating": fields{"list": list}, "annotations": fields{"list": []fields{}}, "links": []fields{}, "panels": panels,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the dashboard: %w", err)
	}
	return b.Bytes(), nil
}

func datasource() fields { return fields{"type": "prometheus", "uid": "${datasource}"} }

func (p *Panel) fields(id int, position fields) fields {
	var targets []fields
	for i, q := range p.Queries {
		target := fields{"refId": string(rune('A' + i)), "datasource": datasource(), "expr": q.Expr, "legendFormat": q.Legend, "editorMode": "code"}
		if p.Kind == TimeSeries {
			target["range"] = true
		} else {
			target["instant"] = true
		}
		if p.Kind == Table {
			target["format"] = "table"
		}
		targets = append(targets, target)
	}
	defaults := fields{"unit": p.Unit, "min": 0}
	steps := []fields{{"color": "green", "value": nil}}
	if p.Bad > 0 {
		steps = append(steps, fields{"color": "red", "value": p.Bad})
	}
	if len(p.Names) > 0 {
		names := fields{}
		for i, name := range p.Names {
			names[strconv.Itoa(i)] = fields{"text": name, "index": i}
		}
		defaults["mappings"] = []fields{{"type": "value", "options": names}}
	}
	defaults["thresholds"] = fields{"mode": "absolute", "steps": steps}
	options := fields{}
	switch p.Kind {
	case TimeSeries:
		stacking := "none"
		if p.Stacked {
			stacking = "normal"
		}
		defaults["custom"] = fields{"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "stacking": fields{"mode": stacking}}
		options = fields{"legend": fields{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}}, "tooltip": fields{"mode": "multi", "sort": "desc"}}
	case Stat, BarGauge:
		options = fields{"reduceOptions": fields{"calcs": []string{"lastNotNull"}}, "orientation": "auto"}
	}
	return fields{"id": id, "type": string(p.Kind), "title": p.Title, "description": p.Help, "datasource": datasource(), "gridPos": position,
		"targets": targets, "fieldConfig": fields{"defaults": defaults, "overrides": []fields{}}, "options": options}
}
