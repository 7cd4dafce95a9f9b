package monitoring

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// Alert is a rule of Prometheus. Each has a runbook in docs/runbooks.
type Alert struct {
	Name string
	Expr string
	// For is how long it must hold.
	For      time.Duration
	Severity Severity
	// Summary is one line, with the labels that say where.
	Summary string
	// Help says what it means.
	Help string
}

// Severity says how soon somebody should look.
type Severity string

// Severities.
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Runbooks is where the pages are, without the alert's name.
const Runbooks = "https://github.com/kaon-project/kaon/blob/main/docs/runbooks/"

// RulesYAML returns the alerts as a rule file of Prometheus.
func RulesYAML(alerts []Alert) ([]byte, error) {
	type rule struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         string            `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	type group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	g := group{Name: "kaon"}
	for _, a := range alerts {
		r := rule{Alert: a.Name, Expr: a.Expr, Labels: map[string]string{"severity": string(a.Severity)},
			Annotations: map[string]string{"summary": a.Summary, "description": a.Help, "runbook_url": Runbooks + a.Name + ".md"}}
		if a.For > 0 {
			r.For = model.Duration(a.For).String()
		}
		g.Rules = append(g.Rules, r)
	}
	text, err := yaml.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		return nil, fmt.Errorf("encode the rules: %w", err)
	}
	return append([]byte("# Written by \"make docs\" from deploy/monitoring; don't edit.\n"), text...), nil
}
