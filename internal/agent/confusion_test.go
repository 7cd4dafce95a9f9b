package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who takes a manifest for the configuration, or the other way round, is told which is which.
func TestConfusedFiles(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("kaon.yaml", "# mine\nprograms: [exec]\n")
	manifest := write("exits.yaml", "apiVersion: kaon.dev/v1alpha1\nkind: Program\nmetadata: {name: a}\nspec: {source: {builtin: exec}}\n")
	if _, err := ReadConfig(manifest); err == nil || !strings.Contains(err.Error(), "this is a manifest") {
		t.Errorf("manifest as configuration: %v", err)
	}
	if _, err := Resolve(config); err == nil || !strings.Contains(err.Error(), "kaon up -c "+config) {
		t.Errorf("configuration as manifest: %v", err)
	}
	if _, err := ReadConfig(config); err != nil {
		t.Error(err)
	}
	if _, err := Resolve(manifest); err != nil {
		t.Error(err)
	}
	if _, err := Resolve(write("x.yaml", "apiVersion: kaon.dev/v1alpha1\nprograms: []\n")); err == nil || strings.Contains(err.Error(), "this is the agent's") {
		t.Errorf("neither: %v", err)
	}
}
