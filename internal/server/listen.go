package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/internal/agent"
)

// ErrNoSocket means that systemd was to give listeners, and gave none.
var ErrNoSocket = errors.New("systemd passed no socket: start the agent by its socket unit, or set web.systemdSocket: false")

// listen opens what the agent serves on, and checks the web configuration: before anything is
// loaded, so that a mistake there costs nothing.
func listen(ctx context.Context, config *agent.Config) ([]net.Listener, error) {
	if err := web.Validate(config.Web.ConfigFile); err != nil {
		return nil, fmt.Errorf("web configuration %s: %w", config.Web.ConfigFile, err)
	}
	if config.Web.SystemdSocket {
		listeners, err := activation.Listeners()
		if err != nil {
			return nil, fmt.Errorf("take systemd's sockets: %w", err)
		}
		if len(listeners) == 0 {
			return nil, ErrNoSocket
		}
		return listeners, nil
	}
	addresses := config.Listen
	if len(addresses) == 0 {
		addresses = []string{agent.DefaultListen}
	}
	var listeners []net.Listener
	for _, address := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: choose another address with --listen", err), closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// closeAll closes listeners that nobody else closed.
func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// address returns the URL of a listener, as one on this machine would use it.
func address(l net.Listener, configFile string) string {
	scheme := "http"
	if usesTLS(configFile) {
		scheme = "https"
	}
	host := l.Addr().String()
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = net.JoinHostPort("localhost", fmt.Sprint(tcp.Port))
	}
	return scheme + "://" + host
}

// usesTLS tells whether a web configuration, which is valid, has certificates.
func usesTLS(configFile string) bool {
	data, err := os.ReadFile(configFile)
	if err != nil {
		return false
	}
	var config struct {
		TLS map[string]any `yaml:"tls_server_config"`
	}
	return yaml.Unmarshal(data, &config) == nil && len(config.TLS) > 0
}
