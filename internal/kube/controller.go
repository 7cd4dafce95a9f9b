package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

const jsonPatch = types.JSONPatchType

// Times of the controller.
const (
	defaultWriteInterval = 5 * time.Second
	// writesPerNode keeps the events that status writes cause for the agents, which all watch, at 100 per second and Program.
	writesPerNode = 10 * time.Millisecond
	// slowly is how many of these intervals lie between two statuses that only say how far a change has come.
	slowly = 4
	// settling is how long after its start the controller may know less than its predecessor did.
	settling = 2 * time.Minute
	// nodeCheck is how often it is looked whether silent nodes exist.
	nodeCheck = time.Minute
	// nodeChecks bounds these looks.
	nodeChecks = 20
)

// ControllerOptions say where the controller works.
type ControllerOptions struct {
	// Namespace of the controller and the agents.
	Namespace string
	// AgentAccount is the agents' ServiceAccount. Default: kaon.
	AgentAccount string
	// Identity is unique among the controller's replicas: its pod's name.
	Identity string
	// Listen is the address on which reports are taken. Default: :9498.
	Listen string
	// Address is what agents reach: the pod's IP, or a Service's. The port is that of Listen.
	Address string
	// WriteInterval is how often the status of one Program may be written in a small cluster. Default: 5s.
	WriteInterval time.Duration
	Logger        *slog.Logger
}

// A Controller gathers what agents report, and alone writes the status of Programs.
type Controller struct {
	options   ControllerOptions
	log       *slog.Logger
	api       *api
	programs  *follower
	collector *collector
	started   time.Time

	mu      sync.Mutex
	dirty   map[string]bool
	written map[string]time.Time
	writes  uint64
	failed  uint64
}

// NewController prepares a controller; Run runs it.
func NewController(config *rest.Config, options ControllerOptions) (*Controller, error) {
	if options.Namespace == "" {
		return nil, ErrNoNamespace
	}
	if options.AgentAccount == "" {
		options.AgentAccount = "kaon"
	}
	if options.Listen == "" {
		options.Listen = ":9498"
	}
	if options.WriteInterval <= 0 {
		options.WriteInterval = defaultWriteInterval
	}
	client, err := newAPI(config)
	if err != nil {
		return nil, err
	}
	c := &Controller{options: options, log: options.Logger, api: client, dirty: map[string]bool{}, written: map[string]time.Time{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.programs = newFollower(followOptions{client: client.programs, codec: client.codec, resource: "programs", log: c.log,
		object: func() runtime.Object { return &resource{} }, list: func() runtime.Object { return &resourceList{} },
		trim: func(o any) { o.(*resource).ManagedFields = nil }, changed: func() { c.mark("") },
		same: func(a, b any) bool {
			a1, b1 := a.(*resource), b.(*resource)
			return a1.UID == b1.UID && a1.Generation == b1.Generation
		}})
	c.collector = &collector{user: "system:serviceaccount:" + options.Namespace + ":" + options.AgentAccount,
		review: c.review, changed: c.mark, nodes: map[string]*heard{}, tokens: map[[32]byte]who{}}
	return c, nil
}

// Run waits for its turn, then takes reports and writes statuses until the context ends or another controller takes over.
func (c *Controller) Run(ctx context.Context) error {
	l := &lease{client: c.api.coordination, namespace: c.options.Namespace, name: ControllerName, own: c.options.Identity, log: c.log}
	if err := l.acquire(ctx); err != nil {
		return nil // told to end while it waited
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.options.Listen)
	if err != nil {
		return fmt.Errorf("listen for reports: %w", err)
	}
	certificate, public, err := newCertificate(time.Now())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler: c.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer func() { _ = server.Close() }()
	c.started = time.Now()
	wait.Go(func() { cancel(server.ServeTLS(listener, "", "")) })
	wait.Go(func() { cancel(l.keep(ctx)) })
	wait.Go(func() { c.programs.run(ctx) })
	if err := c.programs.wait(ctx); err != nil && ctx.Err() != nil {
		return nil
	}
	if err := c.publish(ctx, listener.Addr(), public); err != nil {
		return err
	}
	c.log.Info("in charge of the status of programs", "address", listener.Addr())
	wait.Go(func() { c.lookForNodes(ctx) })
	c.writeStatuses(ctx)
	if err := context.Cause(ctx); errors.Is(err, ErrLeaseLost) || !errors.Is(err, context.Canceled) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (c *Controller) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+reportPath, c.collector)
	return mux
}

// newCertificate makes a key that lives as long as the process, and returns its certificate also as PEM.
func newCertificate(now time.Time) (tls.Certificate, []byte, error) {
	fail := func(err error) (tls.Certificate, []byte, error) {
		return tls.Certificate{}, nil, fmt.Errorf("make a certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fail(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: ControllerName}, DNSNames: []string{ControllerName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fail(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// publish tells agents where to report, and by which certificate they know the controller.
func (c *Controller) publish(ctx context.Context, address net.Addr, certificate []byte) error {
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return fmt.Errorf("publish the controller's address: %w", err)
	}
	host := c.options.Address
	if host == "" {
		host, _, _ = net.SplitHostPort(address.String())
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ControllerName, Namespace: c.options.Namespace},
		Data: map[string]string{"url": "https://" + net.JoinHostPort(host, port), "certificate": string(certificate)}}
	err = c.api.core.Put().Namespace(c.options.Namespace).Resource("configmaps").Name(ControllerName).Body(m).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		err = c.api.core.Post().Namespace(c.options.Namespace).Resource("configmaps").Body(m).Do(ctx).Error()
	}
	if err != nil {
		return fmt.Errorf("publish the controller's address: %w", err)
	}
	return nil
}

func (c *Controller) review(token string) (*authenticationv1.TokenReview, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, err := json.Marshal(newReview(token))
	if err != nil {
		return nil, err
	}
	answer, err := c.api.authentication.Post().Resource("tokenreviews").Body(body).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	var review authenticationv1.TokenReview
	return &review, json.Unmarshal(answer, &review)
}

// mark notes that something new is known about Programs; "" means all.
func (c *Controller) mark(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		c.dirty[name] = true
	}
}

// interval is how often the status of one Program may be written.
func (c *Controller) interval() time.Duration {
	return max(c.options.WriteInterval, time.Duration(c.collector.count())*writesPerNode)
}

// due returns the Programs whose status may have to be written, and may be written now.
func (c *Controller) due(now time.Time) []*resource {
	interval := c.interval()
	all := c.programs.all()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty[""] {
		for _, o := range all {
			c.dirty[o.(*resource).Name] = true
		}
		delete(c.dirty, "")
	}
	var due []*resource
	there := make(map[string]bool, len(all))
	for _, o := range all {
		r := o.(*resource)
		there[r.Name] = true
		if c.dirty[r.Name] && now.Sub(c.written[r.Name]) >= interval {
			delete(c.dirty, r.Name)
			due = append(due, r)
		}
	}
	for name := range c.dirty {
		if !there[name] {
			delete(c.dirty, name)
		}
	}
	for name := range c.written {
		if !there[name] {
			delete(c.written, name)
		}
	}
	return due
}

func (c *Controller) writeStatuses(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, r := range c.due(now) {
				c.writeStatus(ctx, r, now)
			}
		}
	}
}

// progressing tells whether nodes are waited for.
func progressing(s *v1alpha1.ProgramStatus) bool {
	return s != nil && slices.ContainsFunc(s.Conditions, func(c v1alpha1.Condition) bool { return c.Type == "Ready" && c.Reason == "Progressing" })
}

// writeStatus writes the status of one Program if it is another than it was.
func (c *Controller) writeStatus(ctx context.Context, r *resource, now time.Time) {
	var spec v1alpha1.ProgramSpec
	// What is no spec is reported by the agents.
	_ = json.Unmarshal(r.Spec, &spec)
	status := aggregate(subject{uid: string(r.UID), generation: r.Generation, source: describe(&spec), before: r.Status}, c.collector.observe(r.Name), now)
	c.mu.Lock()
	written := c.written[r.Name]
	c.mu.Unlock()
	inherited := written.IsZero()
	if b := r.Status; b != nil && inherited && now.Sub(c.started) < settling && status.Nodes.Desired < b.Nodes.Desired {
		c.mark(r.Name) // the others have not found the new controller yet
		return
	}
	if reflect.DeepEqual(status, r.Status) {
		return
	}
	if progressing(status) && progressing(r.Status) && now.Sub(written) < slowly*c.interval() {
		c.mark(r.Name) // all that changes is how many: who waits wants to know the end
		return
	}
	patch, err := json.Marshal([]map[string]any{{"op": "test", "path": "/metadata/uid", "value": r.UID}, {"op": "add", "path": "/status", "value": status}})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err = c.api.programs.Patch(jsonPatch).Resource("programs").Name(r.Name).SubResource("status").Body(patch).Do(ctx).Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written[r.Name] = now
	c.writes++
	if err != nil {
		c.failed++
		if !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.dirty[r.Name] = true
			c.log.Warn("could not write a status", "program", r.Name, "error", err)
		}
	}
}

// lookForNodes forgets nodes that are silent because they exist no more.
func (c *Controller) lookForNodes(ctx context.Context) {
	ticker := time.NewTicker(nodeCheck / 6)
	defer ticker.Stop()
	var checked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			silent := c.collector.fallSilent(now)
			if now.Sub(checked) < nodeCheck {
				continue
			}
			checked = now
			for _, node := range silent[:min(len(silent), nodeChecks)] {
				var result metav1.PartialObjectMetadata
				err := c.api.core.Get().Resource("nodes").Name(node).SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Into(&result)
				if apierrors.IsNotFound(err) {
					c.log.Info("a node is gone", "node", node)
					c.collector.forget(node)
				}
			}
		}
	}
}

// Figures are the controller's own numbers.
type Figures struct {
	Agents                                                int
	Reports, Refusals, TokenReviews, Writes, FailedWrites uint64
}

// Figures returns the controller's own numbers.
func (c *Controller) Figures() Figures {
	c.mu.Lock()
	f := Figures{Writes: c.writes, FailedWrites: c.failed}
	c.mu.Unlock()
	f.Agents = c.collector.count()
	c.collector.mu.Lock()
	defer c.collector.mu.Unlock()
	f.Reports, f.Refusals, f.TokenReviews = c.collector.reports, c.collector.refusals, c.collector.reviews
	return f
}

// Metrics are the controller's own numbers in the text format of Prometheus.
func (c *Controller) Metrics() []byte {
	f := c.Figures()
	var out []byte
	for _, m := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"kaon_controller_agents", "gauge", "Agents that have reported and not left.", uint64(f.Agents)},
		{"kaon_controller_reports_total", "counter", "Reports that were taken.", f.Reports},
		{"kaon_controller_refused_reports_total", "counter", "Reports that were turned away.", f.Refusals},
		{"kaon_controller_token_reviews_total", "counter", "Tokens of agents that the API server was asked about.", f.TokenReviews},
		{"kaon_controller_status_writes_total", "counter", "Writes of the status of Programs, failed ones included.", f.Writes},
		{"kaon_controller_failed_status_writes_total", "counter", "Writes of the status of Programs that failed.", f.FailedWrites},
	} {
		out = append(out, "# HELP "+m.name+" "+m.help+"\n# TYPE "+m.name+" "+m.kind+"\n"+m.name+" "+strconv.FormatUint(m.value, 10)+"\n"...)
	}
	return out
}
