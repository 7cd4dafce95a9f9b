package schema

import (
	"bytes"
	"os"
	"testing"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

const definition = "../../../deploy/crds/programs.kaon.dev.yaml"

func programs(t *testing.T) []byte {
	t.Helper()
	comments, err := ReadComments(api)
	if err != nil {
		t.Fatal(err)
	}
	data, err := GenerateCRD(v1alpha1.Program{}, Resource{
		Kind: "Program", Plural: "programs", ShortNames: []string{"prog"},
		Columns: []Column{
			{Name: "Ready", Type: "string", JSONPath: ".status.summary", Description: "Nodes that run it, of those that it is meant for"},
			{Name: "Source", Type: "string", JSONPath: ".status.source"},
			{Name: "Accepted", Type: "string", JSONPath: `.status.conditions[?(@.type=="Accepted")].status`, Priority: 1},
			{Name: "Degraded", Type: "string", JSONPath: `.status.conditions[?(@.type=="Degraded")].status`, Priority: 1},
			{Name: "Reason", Type: "string", JSONPath: `.status.conditions[?(@.type=="Ready")].reason`},
			{Name: "Message", Type: "string", JSONPath: `.status.failures[0].message`, Priority: 1},
			{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
		},
	}, comments)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDefinitionIsCurrent(t *testing.T) {
	data := programs(t)
	if *update {
		if err := os.WriteFile(definition, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(definition)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, data) {
		t.Errorf("%s is out of date: run `go test ./internal/manifest/schema -update`", definition)
	}
	// The API server takes 1.5 MiB, and kubectl apply keeps a copy of at most 256 KiB in an annotation.
	if len(data) > 200<<10 {
		t.Errorf("%d bytes", len(data))
	}
}
