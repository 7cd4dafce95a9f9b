package kube

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const reportPath = "/v1/reports"

// Limits of a report.
const (
	maxReport   = 2 << 20
	maxPrograms = 2000
	// tokenCache is how long a token that was checked is good without being checked again.
	tokenCache = 20 * time.Minute
	// reportsPerSecond is how many unchanged reports all agents together should send.
	reportsPerSecond = 50
	minInterval      = 15 * time.Second
)

// Errors of agents that are turned away.
var (
	errUnauthorized = errors.New("the token is not valid for this controller")
	errForbidden    = errors.New("the token is not that of an agent on this node")
)

// who is whom a token belongs to.
type who struct {
	user, node string
	until      time.Time
}

// heard is the latest report of a node.
type heard struct {
	report Report
	at     time.Time
	silent bool
}

// collector takes reports.
type collector struct {
	// user is whom agents' tokens belong to.
	user string
	// review asks the API server whose token it is.
	review func(token string) (*authenticationv1.TokenReview, error)
	// changed is called with the names of Programs about which something new is known. "" means all.
	changed func(programs ...string)

	mu       sync.Mutex
	nodes    map[string]*heard
	tokens   map[[sha256.Size]byte]who
	reports  uint64
	refusals uint64
	reviews  uint64
}

// ServeHTTP takes one report.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	report, err := c.read(r)
	if err != nil {
		c.mu.Lock()
		c.refusals++
		c.mu.Unlock()
		status := http.StatusBadRequest
		switch {
		case errors.Is(err, errUnauthorized):
			status = http.StatusUnauthorized
		case errors.Is(err, errForbidden):
			status = http.StatusForbidden
		}
		http.Error(w, err.Error(), status)
		return
	}
	c.take(report, time.Now())
	w.Header().Set("Content-Type", "application/json")
	// Who does not read the answer asks again.
	_ = json.NewEncoder(w).Encode(c.reply())
}

func (c *collector) read(r *http.Request) (Report, error) {
	var report Report
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return report, errUnauthorized
	}
	from, err := c.identify(token, time.Now())
	if err != nil {
		return report, err
	}
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxReport))
	if err != nil {
		return report, fmt.Errorf("read the report: %w", err)
	}
	if err := json.Unmarshal(data, &report); err != nil {
		return report, fmt.Errorf("read the report: %w", err)
	}
	if report.Node == "" || len(report.Programs) > maxPrograms {
		return report, fmt.Errorf("the report is of node %q with %d programs: want a node, and at most %d", report.Node, len(report.Programs), maxPrograms)
	}
	// Clusters before 1.32 don't say on which node a token's pod is.
	if from.user != c.user || from.node != "" && from.node != report.Node {
		return report, errForbidden
	}
	report.Kernel = cut(report.Kernel)
	for i := range report.Programs {
		report.Programs[i].Message = cut(report.Programs[i].Message)
	}
	return report, nil
}

// identify returns whose token it is.
func (c *collector) identify(token string, now time.Time) (who, error) {
	key := sha256.Sum256([]byte(token))
	c.mu.Lock()
	known, ok := c.tokens[key]
	c.mu.Unlock()
	if ok && now.Before(known.until) {
		return known, nil
	}
	review, err := c.review(token)
	if err != nil {
		return who{}, fmt.Errorf("check the token: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reviews++
	if !review.Status.Authenticated {
		return who{}, errUnauthorized
	}
	known = who{user: review.Status.User.Username, until: now.Add(tokenCache)}
	if nodes := review.Status.User.Extra["authentication.kubernetes.io/node-name"]; len(nodes) == 1 {
		known.node = nodes[0]
	}
	if known.user == c.user {
		c.tokens[key] = known
	}
	return known, nil
}

// newReview asks about a token.
func newReview(token string) *authenticationv1.TokenReview {
	return &authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"},
		Spec:     authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{ControllerName}},
	}
}

// take enters a report.
func (c *collector) take(report Report, now time.Time) {
	c.mu.Lock()
	c.reports++
	before := c.nodes[report.Node]
	if report.Leaving {
		delete(c.nodes, report.Node)
	} else {
		c.nodes[report.Node] = &heard{report: report, at: now}
	}
	c.mu.Unlock()
	if before == nil || before.silent || report.Leaving || before.report.Kernel != report.Kernel {
		c.changed("")
		return
	}
	old := make(map[string]ProgramReport, len(before.report.Programs))
	for _, p := range before.report.Programs {
		old[p.Name] = p
	}
	var changed []string
	for _, p := range report.Programs {
		if old[p.Name] != p {
			changed = append(changed, p.Name)
		}
		delete(old, p.Name)
	}
	for name := range old {
		changed = append(changed, name)
	}
	if len(changed) > 0 {
		c.changed(changed...)
	}
}

// reply tells an agent when to report again: the more agents, the less often.
func (c *collector) reply() Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Reply{IntervalSeconds: c.interval().Seconds(), SpreadSeconds: float64(len(c.nodes)) / (10 * reportsPerSecond)}
}

// interval is how often agents report while nothing changes. c.mu is held.
func (c *collector) interval() time.Duration {
	return max(minInterval, time.Duration(len(c.nodes))*time.Second/reportsPerSecond)
}

// fallSilent marks the nodes that have not reported for three intervals, and forgets tokens that are too old. It returns the silent ones.
func (c *collector) fallSilent(now time.Time) []string {
	c.mu.Lock()
	var silent []string
	news := false
	limit := 3*c.interval() + 10*time.Second
	for name, h := range c.nodes {
		if now.Sub(h.at) <= limit {
			continue
		}
		news = news || !h.silent
		h.silent = true
		silent = append(silent, name)
	}
	for key, w := range c.tokens {
		if now.After(w.until) {
			delete(c.tokens, key)
		}
	}
	c.mu.Unlock()
	if news {
		c.changed("")
	}
	return silent
}

// forget removes a node that does not exist any more.
func (c *collector) forget(node string) {
	c.mu.Lock()
	h := c.nodes[node]
	gone := h != nil && h.silent
	if gone {
		delete(c.nodes, node)
	}
	c.mu.Unlock()
	if gone {
		c.changed("")
	}
}

// observe returns what is known of a Program on each node.
func (c *collector) observe(program string) []observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]observation, 0, len(c.nodes))
	for name, h := range c.nodes {
		o := observation{node: name, kernel: h.report.Kernel, silent: h.silent}
		for i := range h.report.Programs {
			if h.report.Programs[i].Name == program {
				o.report = &h.report.Programs[i]
				break
			}
		}
		all = append(all, o)
	}
	return all
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes)
}
