package lint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
)

// Errors for what is in neither text format.
var (
	// ErrNotText is protobuf, or compressed.
	ErrNotText = errors.New("neither OpenMetrics nor Prometheus text")
	// ErrPage is what browsers are sent.
	ErrPage = errors.New("this is a page for browsers: metrics are mostly at /metrics")
)

// patience is how long an address may take to answer.
const patience = 30 * time.Second

// Accepts of a request: what Prometheus 3 sends, and what asks for one format alone.
const (
	acceptOpenMetrics = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
	acceptText        = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.8,text/plain;version=0.0.4;q=0.7"
)

// Source is where expositions come from.
type Source struct {
	// Stdin is read for the argument -.
	Stdin io.Reader
	// Format to ask an address for, and to read everything as; empty means that the Content-Type says it, or Detect.
	Format Format
}

// All checks what the arguments name: addresses, files, and - for standard input.
func (s *Source) All(ctx context.Context, args []string) *Result {
	result := &Result{Expositions: []*Report{}}
	for _, arg := range args {
		report, err := s.one(ctx, arg)
		if err != nil {
			result.Unusable = append(result.Unusable, err.Error())
			continue
		}
		result.Expositions = append(result.Expositions, report)
	}
	return result
}

func (s *Source) one(ctx context.Context, arg string) (*Report, error) {
	options := Options{Name: arg, Format: s.Format}
	switch {
	case s.Format != "" && s.Format != OpenMetrics && s.Format != Text:
		return nil, fmt.Errorf("format %q: want %s or %s", s.Format, OpenMetrics, Text)
	case strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://"):
		return s.fetch(ctx, arg)
	case arg == "-":
		options.Name = "standard input"
		body, err := readAll(s.Stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return Check(body, options), nil
	}
	file, err := os.Open(arg)
	if err != nil {
		return nil, fmt.Errorf("%w (an address begins with http:// or https://)", err)
	}
	defer file.Close()
	body, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	return Check(body, options), nil
}

// gzipMark begins what gzip wrote.
const gzipMark = "\x1f\x8b"

// readAll reads one byte more than Check takes, which then tells of it.
func readAll(r io.Reader) (string, error) {
	var b strings.Builder
	if _, err := io.Copy(&b, io.LimitReader(r, MaxBytes+1)); err != nil {
		return "", err
	}
	if strings.HasPrefix(b.String(), gzipMark) {
		return "", fmt.Errorf("%w: it is compressed; try gzip -dc FILE | kaon check --exposition -", ErrNotText)
	}
	return b.String(), nil
}

// fetch asks an address as Prometheus does.
func (s *Source) fetch(ctx context.Context, address string) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	accept := acceptOpenMetrics + "," + acceptText
	switch s.Format {
	case OpenMetrics:
		accept = acceptOpenMetrics
	case Text:
		accept = acceptText
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("User-Agent", "kaon-check")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: the server answers %s: a scrape needs 200", address, response.Status)
	}
	body, err := readAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	options := Options{Name: address, Format: s.Format}
	header := response.Header.Get("Content-Type")
	said, escaping, err := formatOf(header)
	if err != nil {
		return nil, fmt.Errorf("%s: Content-Type is %q: %w", address, header, err)
	}
	if options.Format == "" {
		options.Format = said
	}
	options.QuotedNames = escaping == "allow-utf-8"
	report := Check(body, options)
	contentType(report, header, said, Detect(body))
	return report, nil
}

// formatOf reads a Content-Type. The format is empty if it says none.
func formatOf(header string) (format Format, escaping string, err error) {
	// A malformed header says nothing.
	media, parameters, _ := mime.ParseMediaType(header)
	switch {
	case media == "application/openmetrics-text":
		format = OpenMetrics
	case media == "text/plain":
		format = Text
	case media == "text/html":
		return "", "", ErrPage
	case strings.Contains(media, "protobuf"):
		return "", "", fmt.Errorf("%w: ask for one with --format", ErrNotText)
	}
	return format, parameters["escaping"], nil
}

// contentType adds what is wrong with the header.
func contentType(r *Report, header string, said, seen Format) {
	const right = "send Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8, or text/plain; version=0.0.4"
	f := Finding{Severity: Error, Fix: right}
	switch {
	case header == "":
		f.What, f.Why = "the answer has no Content-Type", "Prometheus 3 refuses it"
	case said == "":
		f.What, f.Why = fmt.Sprintf("Content-Type %q is none of a scrape", header), "Prometheus 3 refuses it"
	case said == Text && seen == OpenMetrics && r.Format == Text:
		f.What, f.Why = fmt.Sprintf("the text ends with # EOF as OpenMetrics does, but Content-Type is %q", header), "readers go by the Content-Type; to them # EOF is a comment"
	case said == OpenMetrics && !strings.Contains(header, "version="):
		f.Severity, f.What, f.Why = Warning, fmt.Sprintf("Content-Type %q does not say the version", header), "readers can't know the version's rules"
	default:
		return
	}
	if f.Severity == Error {
		r.errors++
	} else {
		r.warnings++
	}
	r.Findings = append([]Finding{f}, r.Findings...)
}
