package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/kaon-project/kaon/internal/kube"
)

// ControllerOptions are those of the controller's command line.
type ControllerOptions struct {
	Kubeconfig string
	kube.ControllerOptions
	// MetricsListen is the address of the controller's own metrics, empty: none.
	MetricsListen string
	LogLevel      string
	LogFormat     string
	// Out takes the log.
	Out io.Writer
}

// Controller runs the controller until the context ends.
func Controller(ctx context.Context, options ControllerOptions) error {
	log, err := newLogger(options.Out, options.LogLevel, options.LogFormat)
	if err != nil {
		return err
	}
	for _, from := range []struct {
		to   *string
		name string
	}{{&options.Namespace, "POD_NAMESPACE"}, {&options.Identity, "POD_NAME"}, {&options.Address, "POD_IP"}} {
		if *from.to == "" {
			*from.to = os.Getenv(from.name)
		}
	}
	if options.Identity == "" {
		if options.Identity, err = os.Hostname(); err != nil {
			return fmt.Errorf("find a name for this controller: %w: set --identity", err)
		}
	}
	config, err := kube.Connect(options.Kubeconfig)
	if err != nil {
		return err
	}
	options.Logger = log
	c, err := kube.NewController(config, options.ControllerOptions)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if options.MetricsListen != "" {
		server := &http.Server{Addr: options.MetricsListen, Handler: controllerPages(c), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
		defer func() { _ = server.Close() }()
		go func() { cancel(fmt.Errorf("serve the controller's metrics: %w", server.ListenAndServe())) }()
	}
	if err := c.Run(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func controllerPages(c *kube.Controller) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		// Who hangs up has no use for it.
		_, _ = w.Write(c.Metrics())
	})
	return mux
}
