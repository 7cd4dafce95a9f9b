package cluster

import (
	"os"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for module, line := range map[string]string{
		"kubernetes": "k8s.io/kubernetes " + KubernetesVersion,
		"etcd":       "go.etcd.io/etcd/server/v3 " + EtcdVersion,
		"prometheus": "github.com/prometheus/prometheus " + PrometheusVersion,
	} {
		content, err := os.ReadFile("tools/" + module + "/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), line+" ") && !strings.Contains(string(content), line+"\n") {
			t.Errorf("tools/%s/go.mod does not have %q", module, line)
		}
	}
}
