package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
)

func TestPrometheus(t *testing.T) {
	if _, err := Binary("prometheus"); err != nil {
		Need(t, 0)
		t.Skip(err)
	}
	c := start(t, 0)
	configuration := `
scrape_configs:
- job_name: self
  scrape_interval: 100ms
  scrape_timeout: 100ms
  static_configs: [{targets: ["` + prometheusAddress + `"]}]
- job_name: api
  scheme: https
  scrape_interval: 1s
  kubernetes_sd_configs: [{role: endpoints, kubeconfig_file: "` + c.InsideKubeconfig() + `"}]
  tls_config: {ca_file: "PKI/ca.crt", cert_file: "PKI/admin.crt", key_file: "PKI/admin.key"}
`
	configuration = strings.ReplaceAll(configuration, "PKI", c.Dir+"/pki")
	p, err := c.StartPrometheus(t.Context(), configuration)
	if err != nil {
		t.Fatal(err)
	}
	up := func(v model.Vector) error {
		if len(v) != 1 || v[0].Value != 1 {
			return errors.New("not 1")
		}
		return nil
	}
	for _, job := range []string{"self", "api"} {
		if _, err := p.WaitQuery(t.Context(), `up{job="`+job+`"}`, up); err != nil {
			t.Error(err)
		}
	}
	if err := p.Configure(strings.ReplaceAll(configuration, "job_name: self", "job_name: other")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitQuery(t.Context(), `up{job="other"}`, up); err != nil {
		t.Error(err)
	}
}
