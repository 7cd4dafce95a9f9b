package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/lab/kernelview"
	"github.com/kaon-project/kaon/ui"
)

// DefaultListen is where the lab is found.
const DefaultListen = "127.0.0.1:9498"

// RunOptions are those of kaon lab.
type RunOptions struct {
	// Listen is an address with port; empty means DefaultListen.
	Listen string
	// Hosts as in Options.
	Hosts   []string
	Mode    lab.Mode
	Seed    uint64
	Warp    float64
	Program string
	Version string
	// Out takes where to look, Log what happens.
	Out, Log io.Writer
}

// Run serves a lab until the context ends.
func Run(ctx context.Context, options RunOptions) (err error) {
	log := slog.New(slog.NewTextHandler(options.Log, nil))
	if options.Listen == "" {
		options.Listen = DefaultListen
	}
	assets, err := ui.Assets()
	if err != nil {
		return err
	}
	// Before anything listens, so that the kernel's view has its sockets.
	view := kernelview.Start(ctx, kernelview.Options{Logger: log})
	injector := inject.NewInjector()
	defer func() {
		injector.Close()
		err = errors.Join(err, view.Close())
	}()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", options.Listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	defer func() { _ = listener.Close() }() // the server did, unless there was none
	session, err := NewSession(SessionOptions{Mode: options.Mode, Seed: options.Seed, Warp: options.Warp, Program: options.Program, Logger: log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- session.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	server := NewServer(session, Options{Assets: assets, Hosts: options.Hosts, Inject: injector, Kernel: view, Version: options.Version, Logger: log})
	url := address(listener)
	fmt.Fprintf(options.Out, "look:     %s/\nmetrics:  %s/metrics, for Prometheus\nprogram:  %s, which any editor may change\n", url, url, session.Program().Path)
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		log.Warn("whoever reaches this address may change the kick program and inject load", "address", options.Listen)
	}
	return server.Serve(ctx, listener)
}

// address returns the URL of a listener, as one on this machine would use it.
func address(l net.Listener) string {
	host := l.Addr().String()
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = net.JoinHostPort("localhost", fmt.Sprint(tcp.Port))
	}
	return "http://" + host
}
