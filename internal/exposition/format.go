// Package exposition turns series into what a Prometheus server scrapes: the
// text format 0.0.4, OpenMetrics 1.0, and delimited protobuf with native histograms. It appends
// bytes and formats numbers; label sets arrive rendered.
//
// Families without series are left out, metadata included, as client libraries do.
package exposition

import "github.com/prometheus/common/model"

// Syntax is one of the three ways to write an exposition.
type Syntax uint8

// Syntaxes.
const (
	// Text is the classic text format. It has no info, stateset (both are gauges there), unit, exemplar or
	// start time; a gauge histogram is written as a histogram, as client_golang does.
	Text Syntax = iota
	// OpenMetrics is OpenMetrics text.
	OpenMetrics
	// Protobuf is a sequence of length-delimited io.prometheus.client.MetricFamily.
	// Infos and statesets are gauges there.
	Protobuf
)

// Format is a syntax, its version, and what happens to names that are not [a-zA-Z_:][a-zA-Z0-9_:]*.
// The zero Format is text 0.0.4 with UTF-8 names kept; see Negotiate and DefaultFormat.
type Format struct {
	Syntax Syntax
	// Version as in the content type: "0.0.4" or "1.0.0" for Text, "1.0.0" or "0.0.1"
	// for OpenMetrics, empty for Protobuf. Empty means the first named here.
	Version  string
	Escaping model.EscapingScheme
}

// DefaultFormat is what a client gets that asks for nothing in particular.
func DefaultFormat() Format {
	return Format{Syntax: Text, Version: "0.0.4", Escaping: model.UnderscoreEscaping}
}

// ContentType returns the value of the Content-Type header.
func (f Format) ContentType() string {
	escaping := "; escaping=" + f.Escaping.String()
	version := f.Version
	switch f.Syntax {
	case Protobuf:
		return "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited" + escaping
	case OpenMetrics:
		if version == "" {
			version = "1.0.0"
		}
		return "application/openmetrics-text; version=" + version + "; charset=utf-8" + escaping
	default:
		if version == "" {
			version = "0.0.4"
		}
		return "text/plain; version=" + version + "; charset=utf-8" + escaping
	}
}

// Options change what is written. The zero Options are the defaults.
type Options struct {
	// CreatedSamples adds _created samples to OpenMetrics text. Protobuf always has start times.
	CreatedSamples bool
}
