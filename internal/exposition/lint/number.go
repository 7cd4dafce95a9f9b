package lint

import (
	"math"
	"strconv"
	"strings"
)

// number reads a value. The problem is empty if it is one, else it says what is wrong, with what to write instead.
func number(text string) (value float64, problem, fix string) {
	rest := strings.TrimLeft(text, "+-")
	if len(text)-len(rest) <= 1 {
		switch strings.ToLower(rest) {
		case "inf", "infinity":
			if text[0] == '-' {
				return math.Inf(-1), "", ""
			}
			return math.Inf(1), "", ""
		case "nan":
			if rest == text {
				return math.NaN(), "", ""
			}
			return 0, "NaN has no sign", "write NaN"
		}
		if decimal(rest) {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0, text + " does not fit into a 64 bit floating point number", "the largest is about 1.8e308; write +Inf if it has no bound"
			}
			return value, "", ""
		}
	}
	return 0, strconv.Quote(text) + " is not a number", advice(text)
}

// decimal says whether text is digits with at most one point, and an exponent if wanted.
func decimal(text string) bool {
	mantissa, exponent, has := strings.Cut(strings.ToLower(text), "e")
	if has {
		if exponent != "" && strings.Contains("+-", exponent[:1]) {
			exponent = exponent[1:]
		}
		if !digits(exponent) {
			return false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	return digits(whole+fraction) && (whole == "" || digits(whole)) && (fraction == "" || digits(fraction))
}

func digits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// advice guesses what was meant by something that is no number.
func advice(text string) string {
	lower := strings.ToLower(text)
	switch trimmed := strings.TrimRight(lower, "abcdefghijklmnopqrstuvwxyz%µ°"); {
	case strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "'"):
		return "write the number without quotes"
	case lower == "true" || lower == "false":
		return "write 1 for yes and 0 for no"
	case lower == "null" || lower == "none" || lower == "nil" || lower == "n/a" || lower == "-":
		return "leave the line out if there is no value, or write NaN"
	case strings.HasPrefix(lower, "0x"):
		return "write it in decimal"
	case strings.Contains(text, "_") && decimal(strings.ReplaceAll(text, "_", "")):
		return "write " + strings.ReplaceAll(text, "_", "")
	case thousands(text):
		return "write " + strings.ReplaceAll(text, ",", "") + ", without commas between thousands"
	case strings.Count(text, ",") == 1 && decimal(strings.Replace(text, ",", ".", 1)):
		return "write a decimal point: " + strings.Replace(text, ",", ".", 1)
	case trimmed != lower && decimal(strings.TrimLeft(trimmed, "+-")):
		return "write " + trimmed + " alone; the unit belongs into the metric's name"
	}
	return "write it like 17, 0.5, 1.5e+06, NaN, +Inf or -Inf"
}

// thousands says whether text is a whole number with commas between groups of three digits.
func thousands(text string) bool {
	groups := strings.Split(strings.TrimLeft(text, "+-"), ",")
	for _, group := range groups[1:] {
		if len(group) != 3 || !digits(group) {
			return false
		}
	}
	return len(groups) > 1 && len(groups[0]) <= 3 && digits(groups[0]) && groups[0] != "0"
}

// spelling says how a value that readers take should be written, "" if it is.
func spelling(text string) string {
	switch strings.ToLower(strings.TrimLeft(text, "+-")) {
	case "nan":
		return differs(text, "NaN")
	case "inf", "infinity":
		if text[0] == '-' {
			return differs(text, "-Inf")
		}
		return differs(text, "+Inf")
	}
	return ""
}

func differs(text, want string) string {
	if text == want {
		return ""
	}
	return want
}

// canonical is how OpenMetrics writes the number of a le or quantile label.
func canonical(value float64) string {
	text := strconv.FormatFloat(value, 'g', -1, 64)
	if !math.IsInf(value, 0) && !math.IsNaN(value) && !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}
