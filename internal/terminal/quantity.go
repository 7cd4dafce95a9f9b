package terminal

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// Quantity prints a number in at most nine cells with a fitting prefix: seconds as ns, µs, ms,
// s; bytes with binary prefixes; everything else with k, M, G, T.
func Quantity(x float64, unit string) string {
	switch {
	case math.IsNaN(x):
		return "-"
	case math.IsInf(x, 0):
		return "inf"
	}
	switch unit {
	case "seconds":
		return scale(x, []step{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}, {1e-9, "ns"}})
	case "bytes":
		return scale(x, []step{{1 << 60, "EiB"}, {1 << 50, "PiB"}, {1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, "B"}})
	}
	if a := math.Abs(x); a < 10000 && x == math.Trunc(x) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return scale(x, []step{{1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}})
}

type step struct {
	size   float64
	suffix string
}

func scale(x float64, steps []step) string {
	if x == 0 {
		return "0"
	}
	chosen := steps[len(steps)-1]
	for _, s := range steps {
		if math.Abs(x) >= s.size {
			chosen = s
			break
		}
	}
	y := x / chosen.size
	digits := 1
	if a := math.Abs(y); a >= 99.95 || y == math.Trunc(y) {
		digits = 0
	} else if a < 9.995 {
		digits = 2
	}
	suffix := chosen.suffix
	if suffix == "s" || suffix == "B" || len(suffix) > 1 {
		suffix = " " + suffix
	}
	text := fmt.Sprintf("%.*f%s", digits, y, suffix)
	if utf8.RuneCountInString(text) > 9 {
		text = fmt.Sprintf("%.0e%s", y, suffix)
	}
	return text
}
