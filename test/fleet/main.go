// Command fleet measures what a cluster of many nodes costs its API server: it runs a real etcd and kube-apiserver, Kaon's
// controller, and as many agents as it is told, which follow resources and report as real ones do, but load nothing into a kernel.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/kube"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/test/e2e/cluster"
)

func main() {
	agents := flag.Int("agents", 1000, "number of nodes")
	programs := flag.Int("programs", 20, "number of Program resources")
	size := flag.Int("object", 64<<10, "bytes of the object in a ConfigMap")
	idle := flag.Duration("idle", time.Minute, "how long is measured while nothing happens")
	root := flag.String("root", ".", "the repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f := &fleet{agents: *agents, programs: *programs, size: *size, idle: *idle, root: *root}
	if err := f.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// counter counts what goes over connections.
type counter struct{ received, sent, connections atomic.Int64 }

type connection struct {
	net.Conn
	counter *counter
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.counter.received.Add(int64(n))
	return n, err
}

func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.counter.sent.Add(int64(n))
	return n, err
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func (c *counter) through(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.connections.Add(1)
		return &connection{n, c}, nil
	}
}

type fleet struct {
	agents, programs, size int
	idle                   time.Duration
	root                   string

	cluster *cluster.Cluster
	// api are the agents' connections to the API server, own the controller's, reports the agents' to the controller.
	api, own, reports counter
	controller        *kube.Controller
	failing           atomic.Bool
	directory         string
}

func (f *fleet) run(ctx context.Context) error {
	var err error
	// Nothing but the API server's flags for its own protection would have to be larger in a large cluster.
	f.cluster, err = cluster.StartControlPlane(ctx, cluster.Options{APIServerFlags: []string{"--max-requests-inflight=3000", "--max-mutating-requests-inflight=1000"}})
	if err != nil {
		return err
	}
	defer func() { _ = f.cluster.Stop() }()
	if f.directory, err = os.MkdirTemp("", "kaon-fleet-"); err != nil {
		return err
	}
	defer os.RemoveAll(f.directory)
	if err := f.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("%d agents, %d Programs, an object of %d KiB in a ConfigMap.\n\n", f.agents, f.programs, f.size>>10)
	fmt.Println("| phase | seconds | requests of agents | bytes to agents | bytes from agents | reports | bytes of reports | token reviews | status writes |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")

	endController, err := f.startController(ctx)
	if err != nil {
		return err
	}
	background, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	ready := func(program string, n int) func() bool { return func() bool { return f.ready(ctx, program) == n } }
	last := fmt.Sprintf("p%d", f.programs-1)
	steps := []struct {
		name  string
		begin func() error
		done  func() bool
	}{
		{"all agents start", func() error {
			for i := range f.agents {
				if err := f.startAgent(background, &wait, i); err != nil {
					return err
				}
			}
			return nil
		}, ready(last, f.agents)},
		{"at rest", nil, nil},
		{"a Program is created", func() error { return f.cluster.Apply(ctx, resource("new", "{builtin: x}")) }, ready("new", f.agents)},
		{"an object in a ConfigMap is named", func() error {
			return f.cluster.Apply(ctx, resource("object", "{object: {configMapKeyRef: {name: object, key: x.o}}}"))
		}, ready("object", f.agents)},
		{"the object changes", func() error { return f.configMap(ctx, f.size+1) }, nil},
		{"a Program fails on half of the nodes", func() error {
			f.failing.Store(true)
			return f.cluster.Apply(ctx, resource("failing", "{builtin: x}"))
		}, ready("failing", f.agents-f.agents/2)},
		{"the controller starts anew", func() error {
			endController()
			endController, err = f.startController(ctx)
			return err
		}, func() bool { return f.controller.Figures().Agents == f.agents }},
		{"at rest again", nil, nil},
	}
	for _, s := range steps {
		if err := f.measure(ctx, s.name, s.begin, s.done); err != nil {
			return err
		}
	}
	object, err := f.cluster.Dynamic().Resource(gvr).Get(ctx, "failing", metav1.GetOptions{})
	if err != nil {
		return err
	}
	status, err := json.Marshal(object.Object["status"])
	if err != nil {
		return err
	}
	fmt.Printf("\nThe status of the Program that fails has %d bytes; %d connections of agents to the API server.\n", len(status), f.api.connections.Load())
	endController()
	return nil
}

var gvr = schema.GroupVersionResource{Group: "kaon.dev", Version: "v1alpha1", Resource: "programs"}

func resource(name, source string) string {
	return fmt.Sprintf("{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: %s}, spec: {source: %s}}", name, source)
}

// ready returns on how many nodes a Program is ready, by its status.
func (f *fleet) ready(ctx context.Context, name string) int {
	object, err := f.cluster.Dynamic().Resource(gvr).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return -1
	}
	data, err := json.Marshal(object.Object["status"])
	if err != nil {
		return -1
	}
	var status struct {
		Nodes struct{ Desired, Ready int } `json:"nodes"`
	}
	if err := json.Unmarshal(data, &status); err != nil || status.Nodes.Desired != f.agents {
		return -1
	}
	return status.Nodes.Ready
}

func (f *fleet) prepare(ctx context.Context) error {
	for _, path := range []string{"deploy/crds/programs.kaon.dev.yaml", "test/e2e/testdata/rbac.yaml"} {
		text, err := os.ReadFile(filepath.Join(f.root, path))
		if err != nil {
			return err
		}
		if err := f.cluster.Apply(ctx, string(text)); err != nil {
			return err
		}
	}
	for i := range f.programs {
		if err := f.cluster.Apply(ctx, resource(fmt.Sprintf("p%d", i), "{builtin: x}")); err != nil {
			return err
		}
	}
	if err := f.configMap(ctx, f.size); err != nil {
		return err
	}
	accounts := f.cluster.Client().CoreV1().ServiceAccounts("kaon")
	for i := range f.agents {
		if err := f.cluster.Apply(ctx, fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: node%d, labels: {zone: z%d}}}", i, i%3)); err != nil {
			return err
		}
		answer, err := accounts.CreateToken(ctx, "kaon", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{kube.ControllerName}}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.token(i), []byte(answer.Status.Token), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) token(i int) string { return filepath.Join(f.directory, fmt.Sprintf("token%d", i)) }

// configMap holds an object of that many bytes: what follows an ELF file does no harm.
func (f *fleet) configMap(ctx context.Context, size int) error {
	data, err := os.ReadFile(filepath.Join(f.root, "internal/agent/testdata/calls.bpf.o"))
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(append(data, make([]byte, max(0, size-len(data)))...))
	if err != nil {
		return err
	}
	return f.cluster.Apply(ctx, fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: object, namespace: kaon}, binaryData: {x.o: %s}}", encoded))
}

func (f *fleet) config(c *counter) *rest.Config {
	config := f.cluster.Config()
	config.Dial = c.through(f.cluster.Config().Dial)
	return config
}

func (f *fleet) startController(ctx context.Context) (end func(), err error) {
	f.controller, err = kube.NewController(f.config(&f.own), kube.ControllerOptions{Namespace: "kaon", Identity: fmt.Sprint(time.Now().UnixNano()),
		Listen: "127.0.0.1:0", Address: "127.0.0.1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.controller.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "controller:", err)
		}
	}, nil
}

// startAgent runs what an agent does in the cluster.
func (f *fleet) startAgent(ctx context.Context, wait *sync.WaitGroup, i int) error {
	node := fmt.Sprintf("node%d", i)
	builtin := func(string) (*program.Spec, error) {
		return &program.Spec{Name: "x", Collection: &ebpf.CollectionSpec{}}, nil
	}
	config := f.config(&f.api)
	p, err := kube.NewPrograms(config, kube.ProgramsOptions{Node: node, Namespace: "kaon", Manifest: manifest.Options{Builtin: builtin}})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var report kube.Report
	r, err := kube.NewReporter(config, kube.ReporterOptions{Namespace: "kaon", TokenFile: f.token(i), Dial: f.reports.through((&net.Dialer{}).DialContext), Report: func() kube.Report {
		mu.Lock()
		defer mu.Unlock()
		return report
	}})
	if err != nil {
		return err
	}
	wait.Go(func() { p.Run(ctx) })
	wait.Go(func() { r.Run(ctx) })
	wait.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.Changed():
			}
			resources := p.Resources(ctx)
			var health []agent.Health
			for _, found := range resources {
				h := agent.Health{Source: kube.SourcePrefix + found.Name, State: agent.Up}
				if found.Config.Resolved != nil && found.Config.Resolved.Err != nil {
					h.State, h.Reason = agent.Down, found.Config.Resolved.Err.Error()
				}
				if found.Name == "failing" && f.failing.Load() && i < f.agents/2 {
					h.State = agent.Down
					h.Reason = fmt.Sprintf("load function %d: this kernel refuses it for a reason that takes about as many words as a verifier does: %s", i%15, strings.Repeat("R1 type=scalar expected=fp ", 10))
				}
				health = append(health, h)
			}
			next := kube.NewReport(node, fmt.Sprintf("6.%d.0", i%7), "test", resources, health)
			mu.Lock()
			report = next
			mu.Unlock()
		}
	})
	return nil
}

// requests counts those of the API server that are about what agents ask for, long-running ones included.
func (f *fleet) requests(ctx context.Context) (float64, error) {
	text, err := f.cluster.Client().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		// Watches are counted when they end. Single Programs are read by this command only.
		about := strings.Contains(line, `resource="programs"`) && strings.Contains(line, `verb="LIST"`) ||
			strings.Contains(line, `resource="nodes"`) || strings.Contains(line, `resource="configmaps"`)
		if about {
			var value float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &value); err != nil {
				return 0, err
			}
			total += value
		}
	}
	return total, nil
}

type figures struct {
	requests                                float64
	received, sent, reports, reviews, bytes int64
	writes                                  int64
}

func (f *fleet) figures(ctx context.Context) (figures, error) {
	requests, err := f.requests(ctx)
	c := f.controller.Figures()
	return figures{requests: requests, received: f.api.received.Load(), sent: f.api.sent.Load(), bytes: f.reports.sent.Load() + f.reports.received.Load(),
		reports: int64(c.Reports), reviews: int64(c.TokenReviews), writes: int64(c.Writes)}, err
}

func (f *fleet) measure(ctx context.Context, name string, begin func() error, done func() bool) error {
	before, err := f.figures(ctx)
	if err != nil {
		return err
	}
	old := f.controller
	start := time.Now()
	if begin != nil {
		if err := begin(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.controller != old {
		before.reports, before.reviews, before.writes = 0, 0, 0
	}
	if done == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.idle):
		}
	}
	for done != nil && !done() {
		if time.Since(start) > 10*time.Minute {
			return fmt.Errorf("%s: not done after 10 minutes", name)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	elapsed := time.Since(start)
	after, err := f.figures(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("| %s | %.0f | %.0f | %s | %s | %d | %s | %d | %d |\n", name, elapsed.Seconds(), after.requests-before.requests, size(after.received-before.received),
		size(after.sent-before.sent), after.reports-before.reports, size(after.bytes-before.bytes), after.reviews-before.reviews, after.writes-before.writes)
	return nil
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d", n)
}
