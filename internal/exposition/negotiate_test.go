package exposition

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
)

func TestNegotiate(t *testing.T) {
	f := func(want string, accept ...string) {
		t.Helper()
		if got := Negotiate(http.Header{"Accept": accept}).ContentType(); got != want {
			t.Errorf("%q: got %s, want %s", accept, got, want)
		}
	}
	const (
		text      = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
		text1     = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
		om        = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
		omUTF8    = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
		omOld     = "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping=underscores"
		proto     = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
		protoUTF8 = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=allow-utf-8"

		prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
		prometheusNative = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8;q=0.7," + prometheus3
		browser          = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	)
	f(text)
	f(text, "")
	f(text, "*/*")
	f(text, browser)
	f(omUTF8, prometheus3)
	f(protoUTF8, prometheusNative)
	f(om, "application/openmetrics-text")
	f(om, "Application/OpenMetrics-Text ; Version=1.0.0 ; Q=1.0")
	f(omOld, "application/openmetrics-text;version=0.0.1")
	f(omOld, "application/openmetrics-text;version=2.0.0, application/openmetrics-text;version=0.0.1;q=0.1")
	f(text, "application/openmetrics-text;version=2.0.0")
	f(text1, "text/plain;version=1.0.0;escaping=allow-utf-8")
	f(text, "text/plain;version=9")
	f(text, "text/plain;escaping=nonsense")
	f(strings.Replace(text, "underscores", "dots", 1), "text/plain;escaping=dots")
	f(strings.Replace(om, "underscores", "values", 1), `application/openmetrics-text;escaping="values"`)
	f(text, "application/openmetrics-text;q=0, text/plain;q=0.1")
	f(text, "application/openmetrics-text;q=bad")
	f(text, "application/openmetrics-text;q=0.5, text/plain;q=0.9")
	f(om, "text/plain;q=0.5", "application/openmetrics-text;q=0.9")
	f(om, "application/openmetrics-text, text/plain")
	f(proto, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	f(text, "application/vnd.google.protobuf")
	f(text, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text")
	f(text, "application/vnd.google.protobuf;proto=other;encoding=delimited")
	f(om, `x/y;a="b,c;d\"";q=1, application/openmetrics-text;q=0.1`)
	f(text, `;;,,;q=,="`, `"`, `a;b="`)
}

func TestAcceptsGzip(t *testing.T) {
	f := func(want bool, header ...string) {
		t.Helper()
		if got := AcceptsGzip(http.Header{"Accept-Encoding": header}); got != want {
			t.Errorf("%q: got %v", header, got)
		}
	}
	f(false)
	f(false, "")
	f(false, "deflate, br")
	f(false, "gzip;q=0")
	f(false, "gzip;q=0, *;q=1")
	f(false, "identity")
	f(true, "gzip")
	f(true, "GZIP;q=0.1")
	f(true, "deflate, gzip;q=1.0, *;q=0.5")
	f(true, "*")
	f(true, "br", "gzip")
}

func FuzzNegotiate(f *testing.F) {
	f.Add("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3,*/*;q=0.2")
	f.Add(`a/b;c="d\",e";q=0.1,text/*`)
	f.Fuzz(func(t *testing.T, accept string) {
		header := http.Header{"Accept": {accept}, "Accept-Encoding": {accept}}
		format := Negotiate(header)
		AcceptsGzip(header)
		// What comes out must lead to itself.
		again := Negotiate(http.Header{"Accept": {format.ContentType()}})
		if again != format {
			t.Fatalf("%q gives %v, which gives %v", accept, format, again)
		}
		if format.Escaping < model.NoEscaping && format.Syntax > Protobuf {
			t.Fatalf("%q: %v", accept, format)
		}
	})
}
