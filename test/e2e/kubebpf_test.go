package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

// kube-bpf's example, packets by protocol, counts what it should once it is migrated. What the cluster would add is the way of the object.
func TestMigratedKubeBPF(t *testing.T) {
	cgroup := needCgroup(t)
	code, err := os.ReadFile(object(t, "internal/kubebpf/testdata/packets.bpf.o"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "packets.yaml")
	write(t, file, fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: packets}, binaryData: {x.o: %s}}
---
{apiVersion: bpf.sh/v1alpha1, kind: BPF, metadata: {name: packets}, spec: {program: {valueFrom: {configMapKeyRef: {name: packets, key: x.o}}}}}
`, base64.StdEncoding.EncodeToString(code)))
	out, _ := output(t, 0, "migrate", "kube-bpf", file)
	_, text, ok := strings.Cut(out, "---\n")
	if !ok {
		t.Fatal(out)
	}
	var program map[string]any
	if err := yaml.Unmarshal([]byte(strings.TrimSuffix(text, "---\n")), &program); err != nil {
		t.Fatal(err)
	}
	source := program["spec"].(map[string]any)["source"].(map[string]any)
	if source["object"].(map[string]any)["configMapKeyRef"] == nil {
		t.Fatalf("%+v", source)
	}
	source["object"] = map[string]any{"inline": base64.StdEncoding.EncodeToString(code)}
	migrated, err := yaml.Marshal(program)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(migrated))
	a := up(t, cgroup, file)
	before := sum(parse(t, scrape(t, a), textType), "bpf_packets_total", "key", "17")
	const n = 20
	from, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for range n {
		if _, err := from.Write([]byte("x")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	if got := sum(parse(t, scrape(t, a), textType), "bpf_packets_total", "key", "17") - before; got != n {
		t.Errorf("%v packets of UDP, want %d", got, n)
	}
}
