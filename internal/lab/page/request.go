package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/lab"
)

// maxBody of a request in bytes: a kick program in JSON, where a character may take six bytes.
const maxBody = 6*lab.MaxSource + 1024

// guard keeps other sites out: a page of theirs must neither run code here nor read what the lab says.
//
//   - Host must be localhost or an address: a name that an attacker's DNS points here (rebinding) is neither.
//   - What changes something must come from a page of this origin, or from no page at all. So must the rest of the
//     API: another site could not read it, but take up the places of those who look.
func (s *Server) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("X-Frame-Options", "DENY")
		if !s.hostAllowed(r.Host) {
			s.refuse(w, http.StatusForbidden, fmt.Errorf("the lab is not asked for as %q: use localhost or an address, or name the host with --host", r.Host))
			return
		}
		if err := origins.Check(r); err != nil {
			s.refuse(w, http.StatusForbidden, fmt.Errorf("another site asks for this: %w", err))
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); (site == "cross-site" || site == "same-site") && strings.HasPrefix(r.URL.Path, "/api/") {
			s.refuse(w, http.StatusForbidden, errors.New("another site asks for this: open the lab's own page"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) hostAllowed(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "localhost" || slices.ContainsFunc(s.options.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// badRequest is an error of the client with its status.
type badRequest struct {
	status int
	err    error
}

func (e *badRequest) Error() string { return e.err.Error() }
func (e *badRequest) Unwrap() error { return e.err }

// decode reads a JSON body strictly. No body is an empty one.
func decode(r *http.Request, into any) error {
	data, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &badRequest{http.StatusRequestEntityTooLarge, fmt.Errorf("the body is longer than %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &badRequest{http.StatusBadRequest, fmt.Errorf("read the body: %w", err)}
	}
	if len(data) == 0 {
		return nil
	}
	// Browsers ask before they send this type to another site.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &badRequest{http.StatusUnsupportedMediaType, errors.New("send JSON, with Content-Type: application/json")}
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return &badRequest{http.StatusBadRequest, fmt.Errorf("the body is not what is wanted: %w", err)}
	}
	if decoder.More() {
		return &badRequest{http.StatusBadRequest, errors.New("the body goes on after its JSON object")}
	}
	return nil
}

// read decodes a request, and answers it if that fails.
func (s *Server) read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := decode(r, into)
	if bad, ok := errors.AsType[*badRequest](err); ok {
		s.refuse(w, bad.status, bad)
	}
	return err == nil
}

type modeRequest struct {
	Mode lab.Mode `json:"mode"`
}

type warpRequest struct {
	Warp float64 `json:"warp"`
}

// command serves a request that has a body of one type and is answered by the state that follows.
func command[Request any](s *Server, run func(context.Context, *Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if !s.read(w, r, &request) {
			return
		}
		if err := run(r.Context(), &request); err != nil {
			s.fail(w, err)
			return
		}
		s.session.answerState(s, w)
	}
}

func (s *Server) command(run func(context.Context, *struct{}) error) http.HandlerFunc {
	return command(s, run)
}
