package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/internal/agent"
)

// ControllerName is the name of the controller's ConfigMap and Lease, the host name in its certificate, and the audience of agents' tokens.
const ControllerName = "kaon-controller"

// Report is what an agent tells the controller.
type Report struct {
	Node    string `json:"node"`
	Kernel  string `json:"kernel"`
	Version string `json:"version,omitempty"`
	// Leaving says that the agent ends.
	Leaving  bool            `json:"leaving,omitempty"`
	Programs []ProgramReport `json:"programs,omitempty"`
}

// ProgramReport says how the Program of one resource is on the node.
type ProgramReport struct {
	Name       string      `json:"name"`
	UID        string      `json:"uid"`
	Generation int64       `json:"generation"`
	State      agent.State `json:"state"`
	// Unread says that no Program could be made of the resource.
	Unread  bool   `json:"unread,omitempty"`
	Message string `json:"message,omitempty"`
}

// Reply is what the controller answers: after how many seconds to report again if nothing changes, and over how many
// seconds agents should spread reports of a change that all of them see.
type Reply struct {
	IntervalSeconds float64 `json:"intervalSeconds"`
	SpreadSeconds   float64 `json:"spreadSeconds"`
}

// NewReport makes a report of the resources that were applied and of how their Programs are.
func NewReport(node, kernel, version string, resources []Resource, health []agent.Health) Report {
	report := Report{Node: node, Kernel: kernel, Version: version}
	bySource := make(map[string]agent.Health, len(health))
	for _, h := range health {
		bySource[h.Source] = h
	}
	for _, r := range resources {
		if r.Name == "" {
			continue // the API server was not reached yet
		}
		p := ProgramReport{Name: r.Name, UID: r.UID, Generation: r.Generation, State: Elsewhere}
		if !r.Elsewhere {
			h, ok := bySource[SourcePrefix+r.Name]
			if !ok {
				continue // not applied yet
			}
			p.State, p.Unread, p.Message = h.State, h.Unread, cut(h.Reason)
		}
		report.Programs = append(report.Programs, p)
	}
	return report
}

func cut(message string) string {
	if len(message) <= MaxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:MaxMessage-3], "") + "..."
}

// ReporterOptions say what is reported to whom.
type ReporterOptions struct {
	// Namespace of the controller.
	Namespace string
	// TokenFile has the agent's token for the audience ControllerName.
	TokenFile string
	// Report returns what to tell now. It is asked often.
	Report func() Report
	// Dial, if set, connects to the controller.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger
}

// Times of a reporter.
const (
	lookInterval   = time.Second // how often it is looked whether something changed
	firstInterval  = 30 * time.Second
	retryInterval  = 2 * time.Second // doubled at each failure
	maxRetry       = time.Minute
	goodbyeTimeout = 2 * time.Second
)

// A Reporter tells the controller how Programs are: at once after a change, else at an interval that the controller chooses.
type Reporter struct {
	options ReporterOptions
	log     *slog.Logger
	api     *api
	client  *http.Client
	url     string
	reply   Reply
}

// NewReporter prepares to report; Run does it.
func NewReporter(config *rest.Config, options ReporterOptions) (*Reporter, error) {
	client, err := newAPI(config)
	if err != nil {
		return nil, err
	}
	r := &Reporter{options: options, log: options.Logger, api: client, reply: Reply{IntervalSeconds: firstInterval.Seconds()}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Run reports until the context ends; then it says so.
func (r *Reporter) Run(ctx context.Context) {
	var told []byte
	var due time.Time
	failures := 0
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	changed := time.Time{} // when it is time to tell of a change
	for {
		body, err := json.Marshal(r.options.Report())
		now := time.Now()
		switch {
		case err != nil || bytes.Equal(body, told):
			changed = time.Time{}
		case changed.IsZero():
			changed = now.Add(seconds(r.reply.SpreadSeconds * rand.Float64()))
		}
		ready := !changed.IsZero() && !now.Before(changed) || !now.Before(due)
		if err == nil && ready && (failures == 0 || !now.Before(due)) {
			switch err := r.send(ctx, body); {
			case err == nil:
				if failures > 0 {
					r.log.Info("the controller takes reports again")
				}
				told, failures, changed = body, 0, time.Time{}
				due = time.Now().Add(seconds(r.reply.IntervalSeconds * (0.9 + 0.2*rand.Float64())))
			case ctx.Err() == nil:
				if failures++; failures == 3 { // a controller that moves is away for some seconds
					r.log.Warn("can't report to the controller: its status of programs gets old, nothing else", "error", err)
				}
				due = time.Now().Add(seconds(min(maxRetry.Seconds(), retryInterval.Seconds()*float64(int(1)<<min(failures, 6))) * (0.5 + rand.Float64())))
			}
		}
		select {
		case <-ctx.Done():
			r.goodbye(ctx)
			return
		case <-ticker.C:
		}
	}
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func (r *Reporter) goodbye(ctx context.Context) {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	report := r.options.Report()
	report.Leaving, report.Programs = true, nil
	body, err := json.Marshal(report)
	if err == nil && r.client != nil {
		err = r.send(ending, body)
	}
	if err != nil {
		r.log.Debug("could not tell the controller that the agent ends", "error", err)
	}
}

// send posts a report. After a failure it will look up where the controller is.
func (r *Reporter) send(ctx context.Context, body []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if r.client == nil {
		if err := r.find(ctx); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			r.client = nil
		}
	}()
	token, err := os.ReadFile(r.options.TokenFile)
	if err != nil {
		return fmt.Errorf("read the agent's token for the controller: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+reportPath, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("report to the controller: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return fmt.Errorf("report to the controller: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the controller's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the controller answers %s: %s", response.Status, strings.TrimSpace(string(answer)))
	}
	var reply Reply
	if err := json.Unmarshal(answer, &reply); err != nil || reply.IntervalSeconds < 1 {
		return fmt.Errorf("the controller's answer %q can't be understood", answer)
	}
	r.reply = reply
	return nil
}

// find reads where the controller is, and which certificate it has, from its ConfigMap.
func (r *Reporter) find(ctx context.Context) error {
	var m corev1.ConfigMap
	err := r.api.core.Get().Namespace(r.options.Namespace).Resource("configmaps").Name(ControllerName).Do(ctx).Into(&m)
	if err != nil {
		return fmt.Errorf("look up the controller: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(m.Data["certificate"])) || m.Data["url"] == "" {
		return errors.New("look up the controller: its ConfigMap has no url and certificate")
	}
	r.url = m.Data["url"]
	// Thousands of agents that keep connections open would cost the controller more than handshakes do.
	r.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: r.options.Dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: ControllerName, MinVersion: tls.VersionTLS13}}}
	return nil
}
