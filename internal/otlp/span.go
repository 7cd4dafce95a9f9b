// Package otlp sends spans to an OpenTelemetry collector: OTLP 1.x as protobuf over HTTP. It encodes the few messages by hand,
// because the SDK brings gRPC along.
package otlp

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Span is a finished span.
type Span struct {
	// Service is the resource's service.name.
	Service string
	Name    string
	TraceID [16]byte
	SpanID  [8]byte
	// ParentID is zero for a root.
	ParentID   [8]byte
	Start      time.Time
	Duration   time.Duration
	Attributes []Attribute
}

// Attribute is a name with a text.
type Attribute struct{ Key, Value string }

// scope is the instrumentation scope of all spans.
const scope = "github.com/kaon-project/kaon"

// Field numbers of opentelemetry/proto/{collector/trace,trace,common,resource}/v1.
const (
	requestResourceSpans = 1
	resourceSpansSource  = 1
	resourceSpansScopes  = 2
	resourceAttributes   = 1
	scopeSpansScope      = 1
	scopeSpansSpans      = 2
	scopeName            = 1

	spanTraceID    = 1
	spanID         = 2
	spanParentID   = 4
	spanName       = 5
	spanKind       = 6
	spanStart      = 7
	spanEnd        = 8
	spanAttributes = 9

	keyValueKey   = 1
	keyValueValue = 2
	anyString     = 1

	kindInternal = 1
)

// encode returns an ExportTraceServiceRequest.
func encode(spans []Span) []byte {
	var services []string
	byService := map[string][]byte{}
	for i := range spans {
		s := &spans[i]
		if _, known := byService[s.Service]; !known {
			services = append(services, s.Service)
		}
		byService[s.Service] = appendMessage(byService[s.Service], scopeSpansSpans, s.encode())
	}
	var request []byte
	for _, service := range services {
		scopeSpans := appendMessage(nil, scopeSpansScope, appendText(nil, scopeName, scope))
		scopeSpans = append(scopeSpans, byService[service]...)
		resource := appendAttribute(nil, resourceAttributes, "service.name", service)
		resourceSpans := appendMessage(nil, resourceSpansSource, resource)
		resourceSpans = appendMessage(resourceSpans, resourceSpansScopes, scopeSpans)
		request = appendMessage(request, requestResourceSpans, resourceSpans)
	}
	return request
}

func (s *Span) encode() []byte {
	b := appendMessage(nil, spanTraceID, s.TraceID[:])
	b = appendMessage(b, spanID, s.SpanID[:])
	if s.ParentID != [8]byte{} {
		b = appendMessage(b, spanParentID, s.ParentID[:])
	}
	b = appendText(b, spanName, s.Name)
	b = protowire.AppendVarint(protowire.AppendTag(b, spanKind, protowire.VarintType), kindInternal)
	b = protowire.AppendFixed64(protowire.AppendTag(b, spanStart, protowire.Fixed64Type), uint64(s.Start.UnixNano()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, spanEnd, protowire.Fixed64Type), uint64(s.Start.Add(s.Duration).UnixNano()))
	for _, a := range s.Attributes {
		b = appendAttribute(b, spanAttributes, a.Key, a.Value)
	}
	return b
}

func appendAttribute(b []byte, field protowire.Number, key, value string) []byte {
	kv := appendText(nil, keyValueKey, key)
	kv = appendMessage(kv, keyValueValue, appendText(nil, anyString, value))
	return appendMessage(b, field, kv)
}

func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), strings.ToValidUTF8(text, "\uFFFD"))
}
