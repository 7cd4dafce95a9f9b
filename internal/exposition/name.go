package exposition

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

func isNameByte(c byte, first, colon bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || colon && c == ':' || !first && c >= '0' && c <= '9'
}

// isLegacyName says whether a name can stand in an exposition without quotes.
// Colons are for metrics only.
func isLegacyName(name string, colon bool) bool {
	for i := range len(name) {
		if !isNameByte(name[i], i == 0, colon) {
			return false
		}
	}
	return name != ""
}

// escapeMetricName makes a metric's name fit the negotiated scheme. Names that
// every server understands stay as they are, whatever the scheme.
func escapeMetricName(name string, scheme model.EscapingScheme) string {
	if isLegacyName(name, true) {
		return name
	}
	return model.EscapeName(name, scheme)
}

// escapeLabelName does the same for a label's name.
func escapeLabelName(name string, scheme model.EscapingScheme) string {
	if isLegacyName(name, false) || scheme == model.NoEscaping {
		return name
	}
	if strings.Contains(name, ":") && scheme == model.ValueEncodingEscaping {
		// The scheme keeps colons, which labels can't have.
		name = strings.ReplaceAll(name, ":", "_3a_")
	}
	return strings.ReplaceAll(model.EscapeName(name, scheme), ":", "_")
}

// quoted returns a name in quotes.
func quoted(name string) string {
	return string(append(appendEscapedText([]byte{'"'}, name, true), '"'))
}

// appendEscapedText escapes backslashes, newlines and, if quotes is set, double quotes. Invalid UTF-8 and NUL become U+FFFD.
func appendEscapedText(dst []byte, text string, quotes bool) []byte {
	for _, r := range text {
		switch {
		case r == '\\':
			dst = append(dst, '\\', '\\')
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == 0: // Prometheus refuses the whole scrape
			dst = append(dst, "\uFFFD"...)
		case r == '"' && quotes:
			dst = append(dst, '\\', '"')
		default:
			dst = append(dst, string(r)...)
		}
	}
	return dst
}

// hasForeignLabels says whether a label of the metric needs quotes or escaping, so
// that its label sets can't be copied as they are.
func hasForeignLabels(m *program.Metric) bool {
	for i := range m.StaticLabels {
		if !isLegacyName(m.StaticLabels[i].Name, false) {
			return true
		}
	}
	return anyForeign(m.Labels) || m.Exemplar != nil && anyForeign(m.Exemplar.Labels)
}

func anyForeign(labels []program.Label) bool {
	for i := range labels {
		// Decoders that choose their labels' names themselves may have none here.
		if name := labels[i].Name; name != "" && !isLegacyName(name, false) {
			return true
		}
	}
	return false
}

// relabel renders a label set anew with escaped or, if quotes is set and a name needs it, quoted names.
func relabel(labels string, scheme model.EscapingScheme, quotes bool) string {
	var dst []byte
	var seen []string
	series.EachLabel(labels, func(name, value string) bool {
		name = escapeLabelName(name, scheme)
		// Two names may become the same one; both are kept.
		for slices.Contains(seen, name) {
			name += "_"
		}
		seen = append(seen, name)
		if quotes && !isLegacyName(name, false) {
			name = quoted(name)
		}
		dst = series.AppendLabel(dst, name, value)
		return true
	})
	return string(dst)
}
