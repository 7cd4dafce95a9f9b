package ebpfexporter_test

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kaon-project/kaon/internal/agent"
)

// fieldsOf splits a message into its fields.
func fieldsOf(t *testing.T, b []byte) map[protowire.Number][][]byte {
	t.Helper()
	fields := map[protowire.Number][][]byte{}
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(number, typ, b[n:])
		if m < 0 {
			t.Fatal(protowire.ParseError(m))
		}
		value := b[n : n+m]
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		fields[number] = append(fields[number], value)
		b = b[n+m:]
	}
	return fields
}

// Records become spans: identifiers, parents, times, names, attributes; those that a decoder skips do not.
func TestSpans(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to load programs")
	}
	var mu sync.Mutex
	var requests [][]byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, body)
	}))
	defer server.Close()
	a, err := agent.New(agent.Options{Traces: agent.TracesConfig{Endpoint: server.URL + "/v1/traces"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	config := agent.Config{Programs: []agent.ProgramConfig{{Source: filepath.Join("testdata", "spans.yaml")}}}
	if err := a.Apply(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s[0].State != agent.Up {
		t.Fatalf("%+v", s[0])
	}
	before := time.Now()
	trigger(1, 2, 3, 4, 5)
	after := time.Now()
	spans := map[string]map[protowire.Number][][]byte{}
	eventually(t, "spans are sent", func() bool {
		if err := a.FlushSpans(context.Background()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, request := range requests {
			for _, resourceSpans := range fieldsOf(t, request)[1] {
				r := fieldsOf(t, resourceSpans)
				if !strings.Contains(string(r[1][0]), "service.name") || !strings.Contains(string(r[1][0]), "tests") {
					t.Fatalf("resource %q", r[1][0])
				}
				for _, span := range fieldsOf(t, r[2][0])[2] {
					f := fieldsOf(t, span)
					spans[string(f[5][0])] = f
				}
			}
		}
		requests = nil
		return len(spans) >= 4
	})
	first, second, alone, five := spans["first"], spans["second"], spans["alone"], spans["unknown:5"]
	if len(spans) != 4 || first == nil || second == nil || alone == nil || five == nil {
		t.Fatalf("got %d spans: %v", len(spans), spans)
	}
	if id := hex.EncodeToString(first[1][0]); id != "88776655443322110100000000000000" {
		t.Errorf("trace %s", id)
	}
	if id := hex.EncodeToString(first[2][0]); id != "0000000000000001" || len(first[4]) != 0 {
		t.Errorf("span %s of parent %x", id, first[4])
	}
	if string(second[4][0]) != string(first[2][0]) || string(second[1][0]) != string(first[1][0]) || strings.Trim(string(second[2][0]), "\x00") == "" {
		t.Errorf("the second is of %x, and %x itself", second[4], second[2])
	}
	if strings.Trim(string(alone[1][0]), "\x00") == "" || string(alone[1][0]) == string(first[1][0]) {
		t.Errorf("a span without a trace is in %x", alone[1])
	}
	start, _ := protowire.ConsumeFixed64(second[7][0])
	end, _ := protowire.ConsumeFixed64(second[8][0])
	// The clocks are read one after the other.
	if at := time.Unix(0, int64(start)); at.Before(before.Add(-time.Second)) || at.After(after.Add(time.Second)) || end-start != 2000 {
		t.Errorf("it lasts %d ns from %v", end-start, at)
	}
	var attributes []string
	for _, kv := range second[9] {
		f := fieldsOf(t, kv)
		value := ""
		if v := fieldsOf(t, f[2][0])[1]; len(v) > 0 {
			value = string(v[0])
		}
		attributes = append(attributes, string(f[1][0])+"="+value)
	}
	if got := strings.Join(attributes, " "); got != "ebpf_exporter.config=spans text=a\uFFFD" {
		t.Errorf("attributes %q", got)
	}
}
