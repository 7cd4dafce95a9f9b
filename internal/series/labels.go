package series

import (
	"strings"
	"unicode/utf8"
)

// A label set is kept as the text that goes into an exposition: name="value"
// pairs, separated by commas, values escaped (backslash, newline, quote) and
// valid UTF-8. So it is rendered once and then only copied. Names that need
// quotes (UTF-8 names) are kept bare here; an exposition that meets one must
// render the set anew.

// MaxLabelValue is the maximal length of a label value in bytes; what is longer is cut at a rune.
const MaxLabelValue = 1024

// AppendLabel appends name="value" to a label set in text form, after a comma if
// dst is not empty. An empty value is a label that is absent: nothing is appended.
// value may be any bytes: invalid UTF-8 and NUL become U+FFFD.
func AppendLabel(dst []byte, name string, value string) []byte {
	if value == "" {
		return dst
	}
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, name...)
	dst = append(dst, '=', '"')
	dst = appendEscapedUpTo(dst, value, MaxLabelValue)
	return append(dst, '"')
}

func appendEscapedUpTo(dst []byte, value string, most int) []byte {
	length := 0
	for i := 0; i < len(value); {
		c := value[i]
		if c < utf8.RuneSelf {
			if length++; length > most {
				return dst
			}
			switch c {
			case '\\':
				dst = append(dst, '\\', '\\')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '"':
				dst = append(dst, '\\', '"')
			case 0:
				// OpenMetrics allows it, but Prometheus refuses the whole scrape.
				if length += 2; length > most {
					return dst
				}
				dst = append(dst, "\uFFFD"...)
			default:
				dst = append(dst, c)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(value[i:])
		if length += utf8.RuneLen(r); length > most {
			return dst
		}
		dst = utf8.AppendRune(dst, r)
		i += size
	}
	return dst
}

// EachLabel calls yield with every name and (unescaped) value of a label set in text form
// until it returns false. The strings share the set's memory where nothing was escaped.
func EachLabel(labels string, yield func(name, value string) bool) {
	for labels != "" {
		i := strings.Index(labels, `="`)
		if i < 0 {
			return
		}
		name, rest := labels[:i], labels[i+2:]
		end, escaped := 0, false
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				escaped = true
				end++
			}
			end++
		}
		if end >= len(rest) {
			return
		}
		value := rest[:end]
		if escaped {
			value = unescape(value)
		}
		if !yield(name, value) {
			return
		}
		labels = strings.TrimPrefix(rest[end+1:], ",")
	}
}

func unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if s[i] == 'n' {
			b.WriteByte('\n')
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
