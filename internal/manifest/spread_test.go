package manifest

import (
	"strings"
	"testing"
)

// Steps and keys that are slots: what is wrong with them is found.
func TestSpreadAndSteps(t *testing.T) {
	o := options(t)
	f := func(metric, want string) {
		t.Helper()
		text := head + "spec:\n  source: {builtin: shop}\n  metrics:\n  - " + metric + "\n"
		_, err := Parse([]byte(text), "testdata/example.yaml", o)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\ngot  %v\nwant %s", metric, err, want)
		}
	}
	columns := "map: opaque, key: [{name: shard, size: 4, type: uint}, {name: slot, offset: 4, size: 4, type: uint}], value: [{name: n, size: 8, type: uint}]"
	spread := func(histogram string) string {
		return "{name: h, type: histogram, from: {" + columns + ", histogram: {" + histogram + "}}}"
	}
	f(spread("key: slot, upper: [1, 2]"), "")
	f(spread("key: slot, upper: [1, 2], numbers: [1, 5], sumNumber: 9"), "")
	f(spread("key: slot"), "upper: it is empty")
	f(spread("key: slot, upper: [2, 1]"), "upper[1]: bounds must ascend")
	f(spread("key: slott, upper: [1]"), `the key has no number "slott"`)
	f(spread("key: slot, upper: [1], bounds: [1]"), "with key there are upper")
	f(spread("key: slot, upper: [1, 2], numbers: [1]"), "there is one for each bound")
	f("{name: h, type: gaugehistogram, from: {"+columns+", histogram: {key: slot, upper: [1]}}}", "keys that are slots make no gaugehistogram")
	steps := func(list string) string { return "{metric: requests_total, labels: {steps: {code: " + list + "}}}" }
	f(steps("[{name: uint}, {name: static_map, values: {1: a}, allowUnknown: true}, {name: regexp, regexps: [a]}]"), "")
	f(steps("[]"), "there is no step")
	f(steps("[{name: unit}]"), `there is no step "unit"`)
	f(steps("[{name: regexp}]"), "the step regexp has them")
	f(steps("[{name: regexp, regexps: ['(']}]"), "missing closing )")
	f(steps("[{name: uint, values: {1: a}}]"), "the step static_map has them")
	f("{metric: requests_total, labels: {decode: {code: hex}, steps: {code: [{name: uint}]}}}", "the label has decode or values as well")
	f("{metric: requests_total, labels: {steps: {none: [{name: uint}]}}}", `there is no label "none"`)
}
