package kube

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestConnect(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Connect(""); !errors.Is(err, ErrNoCluster) {
		t.Error(err)
	}
	missing := filepath.Join(t.TempDir(), "kubeconfig")
	if _, err := Connect(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := FindNames(missing, PodsOptions{Node: "n1"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	const config = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}],
clusters: [{name: k, cluster: {server: "http://127.0.0.1:1"}}], users: [{name: u, user: {}}]}`
	if err := os.WriteFile(missing, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	rest, err := Connect(missing)
	if err != nil || rest.Host != "http://127.0.0.1:1" {
		t.Errorf("%+v, %v", rest, err)
	}
	names, err := FindNames(missing, PodsOptions{Node: "n1"})
	if err != nil || names.pods == nil || names.Stats()[0].Source != "api" {
		t.Errorf("%+v, %v", names, err)
	}
}

func TestNodeName(t *testing.T) {
	f := func(environment, configured, want string) {
		t.Helper()
		t.Setenv("NODE_NAME", environment)
		got, err := NodeName(configured)
		if got != want || errors.Is(err, ErrNoNode) != (want == "") {
			t.Errorf("%q, %q: %q, %v", environment, configured, got, err)
		}
	}
	f("", "", "")
	f("a", "", "a")
	f("a", "b", "b")
}
