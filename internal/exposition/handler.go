package exposition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/series"
)

// Snapshot is what one gathering yields.
type Snapshot struct {
	// Families in any order.
	Families []*series.Family
	// Release gives the families' memory back; nil if there is nothing to do.
	Release func()
}

func (s Snapshot) release() {
	if s.Release != nil {
		s.Release()
	}
}

// Gather reads the families with the given names (as in program.Metric.Name), or all if there
// are none. When the context's time is up it returns what there is, or an error if that is nothing.
type Gather func(ctx context.Context, names []string) (Snapshot, error)

// HandlerOptions configure a Handler. The zero options are the defaults.
type HandlerOptions struct {
	Options
	// Extra, if not nil, are families of client_golang (go_*, process_*) that follow ours.
	Extra prometheus.Gatherer
	// Logger takes what is wrong with single families; nil means slog.Default.
	Logger *slog.Logger
	// Done, if not nil, is called after each scrape.
	Done func(Scrape)
}

// Scrape tells how one request went.
type Scrape struct {
	Format Format
	// Bytes before compression that were written, and after it.
	Bytes, Sent int64
	Elapsed     time.Duration
	Err         error
}

// Handler serves expositions over HTTP. It implements http.Handler.
type Handler struct {
	gather  Gather
	options HandlerOptions
	logger  *slog.Logger
	writers sync.Pool // of *Writer
	zippers sync.Pool // of *gzip.Writer

	mu        sync.Mutex
	complaint string // the latest, so that it is not logged at each scrape
}

// NewHandler returns a Handler that asks gather at each request.
func NewHandler(gather Gather, options HandlerOptions) *Handler {
	h := &Handler{gather: gather, options: options, logger: options.Logger}
	if h.logger == nil {
		h.logger = slog.Default()
	}
	return h
}

// ServeHTTP serves one scrape. It honours name[] parameters and Prometheus'
// X-Prometheus-Scrape-Timeout-Seconds. Before the first byte an error is a 500 that says why; after it the connection
// is aborted by panicking with http.ErrAbortHandler, so that nobody takes a part for the whole.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rw.Header().Set("Allow", "GET, HEAD")
		http.Error(rw, "method not allowed: use GET", http.StatusMethodNotAllowed)
		return
	}
	begun := time.Now()
	scrape := Scrape{Format: Negotiate(r.Header)}
	defer func() {
		if h.options.Done != nil {
			scrape.Elapsed = time.Since(begun)
			h.options.Done(scrape)
		}
	}()
	ctx := r.Context()
	gathering := ctx
	if timeout := scrapeTimeout(r.Header); timeout > 0 {
		var cancel context.CancelFunc
		gathering, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}

	names := r.URL.Query()["name[]"]
	snapshot, err := h.gather(gathering, names)
	defer snapshot.release()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		scrape.Err = fmt.Errorf("read the metrics: %w", err)
		header := rw.Header()
		header.Set("Vary", "Accept, Accept-Encoding")
		http.Error(rw, explain(scrape.Err), http.StatusInternalServerError)
		return
	}
	groups, err := Group(snapshot.Families)
	problems := []error{err}
	var extra []*dto.MetricFamily
	if h.options.Extra != nil {
		// Gatherers return what they could gather along with an error.
		extra, err = h.options.Extra.Gather()
		problems = append(problems, err)
	}
	if len(names) > 0 {
		groups = slices.DeleteFunc(groups, func(g []*series.Family) bool { return !slices.Contains(names, g[0].Metric.Name) })
		extra = slices.DeleteFunc(slices.Clone(extra), func(f *dto.MetricFamily) bool { return !slices.Contains(names, f.GetName()) })
	}

	header := rw.Header()
	header.Set("Content-Type", scrape.Format.ContentType())
	header.Set("Vary", "Accept, Accept-Encoding")
	sent := &counter{out: rw}
	var out io.Writer = sent
	var zipper *gzip.Writer
	if AcceptsGzip(r.Header) {
		header.Set("Content-Encoding", "gzip")
		if zipper, _ = h.zippers.Get().(*gzip.Writer); zipper == nil {
			zipper, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
		}
		zipper.Reset(sent)
		out = zipper
		defer h.zippers.Put(zipper)
	}
	w, _ := h.writers.Get().(*Writer)
	if w == nil {
		w = NewWriter(nil, Format{}, Options{})
	}
	w.Reset(&guard{ctx, out}, scrape.Format, h.options.Options)
	defer func() {
		w.Reset(nil, Format{}, Options{})
		h.writers.Put(w)
	}()

	err = h.write(w, groups, extra, problems)
	if err == nil && zipper != nil {
		err = zipper.Close()
	}
	scrape.Bytes, scrape.Sent = w.Written(), sent.n
	if err != nil {
		scrape.Err = fmt.Errorf("write the exposition: %w", err)
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's way to abort a connection
	}
}

func (h *Handler) write(w *Writer, groups [][]*series.Family, extra []*dto.MetricFamily, problems []error) error {
	for _, g := range groups {
		err := w.Write(g)
		if err != nil && !errors.Is(err, ErrRefused) {
			return err
		}
		problems = append(problems, err)
	}
	err := w.WriteGathered(extra)
	if err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	h.complain(errors.Join(append(problems, err)...))
	return w.Close()
}

// complain logs what is wrong with families that are left out, once until it changes.
func (h *Handler) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	changed := text != h.complaint
	h.complaint = text
	h.mu.Unlock()
	if changed && err != nil {
		h.logger.Warn("some metrics are missing from the exposition", "err", err)
	}
}

// explain makes an error a text for the person who looks at a failed target.
func explain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return err.Error() + ": the scrape timeout was too short for this machine at this moment: raise scrape_timeout or select metrics by name[]"
	}
	return err.Error()
}

// scrapeTimeout returns how long a scrape may take by the client's header, less a
// tenth, at most half a second, for the way back. 0 means that it does not say.
func scrapeTimeout(header http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || !(seconds > 0 && seconds <= 24*60*60) {
		return 0
	}
	timeout := time.Duration(seconds * float64(time.Second))
	return timeout - min(timeout/10, time.Second/2)
}

// guard stops writing when the context ended: the client is gone.
type guard struct {
	ctx context.Context
	out io.Writer
}

func (g *guard) Write(b []byte) (int, error) {
	if err := g.ctx.Err(); err != nil {
		return 0, err
	}
	return g.out.Write(b)
}

// counter counts what is sent.
type counter struct {
	out io.Writer
	n   int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.out.Write(b)
	c.n += int64(n)
	return n, err
}

// utf8Protobuf is the format that loses least.
func utf8Protobuf() Format { return Format{Syntax: Protobuf, Escaping: model.NoEscaping} }

// NewGatherer returns a client_golang Gatherer of our families, for what
// speaks that interface: the OTLP bridge, tests. It copies everything.
func NewGatherer(ctx context.Context, gather Gather) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		snapshot, err := gather(ctx, nil)
		defer snapshot.release()
		if err != nil {
			return nil, err
		}
		return MetricFamilies(snapshot.Families)
	})
}
