package exposition

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
)

// Negotiate chooses the format that a request's Accept header asks for: of what is
// served, what has the highest quality, and of equals the first. Nothing suitable gives
// DefaultFormat, as every client understands it.
func Negotiate(header http.Header) Format {
	best, bestQuality := DefaultFormat(), 0.0
	for _, value := range header.Values("Accept") {
		eachElement(value, func(media string, params []param) {
			quality := qualityOf(params)
			if quality <= bestQuality {
				return
			}
			if format, ok := match(media, params); ok {
				best, bestQuality = format, quality
			}
		})
	}
	return best
}

// AcceptsGzip says whether a request's Accept-Encoding header allows gzip.
func AcceptsGzip(header http.Header) bool {
	gzip, any := -1.0, -1.0
	for _, value := range header.Values("Accept-Encoding") {
		eachElement(value, func(coding string, params []param) {
			switch coding {
			case "gzip", "x-gzip":
				gzip = qualityOf(params)
			case "*":
				any = qualityOf(params)
			}
		})
	}
	if gzip >= 0 {
		return gzip > 0
	}
	return any > 0
}

// match returns the format for a media range, if it is served.
func match(media string, params []param) (Format, bool) {
	format := DefaultFormat()
	version := ""
	for _, p := range params {
		switch p.name {
		case "version":
			version = p.value
		case "escaping":
			switch p.value {
			case model.AllowUTF8:
				format.Escaping = model.NoEscaping
			case model.EscapeDots:
				format.Escaping = model.DotsEscaping
			case model.EscapeValues:
				format.Escaping = model.ValueEncodingEscaping
			}
		case "proto":
			if p.value != "io.prometheus.client.MetricFamily" {
				return format, false
			}
		case "encoding":
			if p.value != "delimited" {
				return format, false
			}
		}
	}
	switch media {
	case "*/*", "text/*":
		return format, true
	case "text/plain":
		if version != "" && version != "0.0.4" && version != "1.0.0" {
			return format, false
		}
		if version != "" {
			format.Version = version
		}
		return format, true
	case "application/openmetrics-text":
		if version == "" {
			version = "1.0.0"
		}
		format.Syntax, format.Version = OpenMetrics, version
		return format, version == "1.0.0" || version == "0.0.1"
	case "application/vnd.google.protobuf":
		format.Syntax, format.Version = Protobuf, ""
		return format, has(params, "proto") && has(params, "encoding")
	}
	return format, false
}

// param is one parameter of a media range; the name is in lower case.
type param struct{ name, value string }

func has(params []param, name string) bool {
	for _, p := range params {
		if p.name == name {
			return true
		}
	}
	return false
}

// qualityOf returns the q parameter: 1 if there is none, 0 if it is malformed.
func qualityOf(params []param) float64 {
	for _, p := range params {
		if p.name == "q" {
			q, err := strconv.ParseFloat(p.value, 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}

// eachElement calls yield with each element of a comma-separated header (RFC 9110, 5.6.1 and
// 12.5.1), in lower case, and its parameters, whose values may be quoted.
func eachElement(header string, yield func(element string, params []param)) {
	var params []param
	for header != "" {
		var element string
		element, header = cutToken(header, ",;")
		params = params[:0]
		for header != "" && header[0] == ';' {
			var name, value string
			name, header = cutToken(header[1:], ",;=")
			if header != "" && header[0] == '=' {
				value, header = cutValue(header[1:])
			}
			if name != "" {
				params = append(params, param{strings.ToLower(name), value})
			}
		}
		if element != "" {
			yield(strings.ToLower(element), params)
		}
		if header != "" {
			header = header[1:] // the comma
		}
	}
}

// cutToken returns what is before the first of the separators, without space around it, and the rest from there.
func cutToken(s, separators string) (token, rest string) {
	end := strings.IndexAny(s, separators)
	if end < 0 {
		end = len(s)
	}
	return strings.Trim(s[:end], " \t"), s[end:]
}

// cutValue returns a token or a quoted string and the rest from the next separator.
func cutValue(s string) (value, rest string) {
	s = strings.TrimLeft(s, " \t")
	if s == "" || s[0] != '"' {
		return cutToken(s, ",;")
	}
	var b strings.Builder
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	_, rest = cutToken(s[min(i+1, len(s)):], ",;")
	return b.String(), rest
}
