package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/kaon-project/kaon/internal/agent"
)

func TestPages(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec")
	runs(t, cgroup, 1)
	for path, want := range map[string]string{
		"/": "process_starts_total", "/-/healthy": "healthy", "/-/ready": "ready", "/api/v1/programs": `"name": "exec"`,
	} {
		code, body := get(t, a, path)
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %q is missing: %s", path, code, want, body)
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/nothing"} {
		if code, _ := get(t, a, path); code != 404 {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
	profiled := up(t, cgroup, "exec", "--profiling")
	if code, _ := get(t, profiled, "/debug/pprof/heap"); code != 200 {
		t.Errorf("with --profiling: %d", code)
	}
	// Two agents at a time count the same, each by itself.
	runs(t, cgroup, 1)
	if x := sum(parse(t, scrape(t, profiled), textType), "process_starts_total"); x != 1 {
		t.Errorf("the second agent has %v", x)
	}
	if x := sum(parse(t, scrape(t, a), textType), "process_starts_total"); x != 2 {
		t.Errorf("the first agent has %v", x)
	}
}

func TestNames(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec", "tasks")
	runs(t, cgroup, 1)
	code, body := get(t, a, "/metrics?name[]=process_starts_total&name[]=go_goroutines")
	if code != 200 {
		t.Fatal(code, body)
	}
	got := parse(t, body, textType)
	if len(got) != 2 || sum(got, "process_starts_total") != 1 || len(got["go_goroutines"]) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestScrapeTimeout(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec")
	code, body := get(t, a, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", "0.000001")
	if code != 500 || !strings.Contains(body, "raise scrape_timeout") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(t, a, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", "5"); code != 200 {
		t.Errorf("5 s: %d", code)
	}
	if x := sum(parse(t, scrape(t, a), textType), "kaon_scrapes_total", "result", "failure"); x != 1 {
		t.Errorf("%v failures are counted, want 1", x)
	}
}

func TestListen(t *testing.T) {
	cgroup := needCgroup(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, messages := output(t, 1, "up", "exec", "--cgroup-root", cgroup.Path, "--listen", taken.Addr().String())
	has(t, messages, taken.Addr().String(), "address already in use")
	if strings.Contains(messages, "look: ") {
		t.Errorf("it says where to look although nothing is there:\n%s", messages)
	}

	// Without --listen nobody from outside gets in.
	command := kaon("up", "exec", "--cgroup-root", cgroup.Path)
	var log strings.Builder
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it listens on "+agent.DefaultListen, func() bool { return listening(agent.DefaultListen) })
	if listening("127.0.0.2:9497") {
		t.Error("it listens on other addresses than 127.0.0.1")
	}
	if err := errors.Join(command.Process.Signal(os.Interrupt), command.Wait()); err != nil {
		t.Errorf("%v: %s", err, log.String())
	}
}

func TestTLSAndBasicAuthentication(t *testing.T) {
	cgroup := needCgroup(t)
	directory := t.TempDir()
	pool := certificate(t, directory)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(directory, "web.yaml"), "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  prometheus: "+string(hash)+"\n")
	write(t, filepath.Join(directory, "kaon.yaml"), "programs: [exec]\nweb:\n  configFile: web.yaml\n")
	a := startAgent(t, cgroup, kaon(), "-c", filepath.Join(directory, "kaon.yaml"))
	address := strings.TrimPrefix(a.URL, "http://")
	eventually(t, "it listens", func() bool { return listening(address) })
	a.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	a.URL = "https://" + address
	if code, _ := get(t, a, "/metrics"); code != 401 {
		t.Errorf("without a password: %d, want 401", code)
	}
	if code, _ := get(t, a, "/metrics", "Authorization", "Basic cHJvbWV0aGV1czp3cm9uZw=="); code != 401 {
		t.Errorf("with a wrong password: %d, want 401", code)
	}
	if code, body := get(t, a, "/metrics", "Authorization", "Basic cHJvbWV0aGV1czpzZWNyZXQ="); code != 200 || !strings.Contains(body, "kaon_build_info") {
		t.Errorf("with the password: %d", code)
	}
	a.URL = "http://" + address
	if code, _, _, err := a.Get("/metrics"); err == nil && code == 200 {
		t.Error("it answers without TLS")
	}
	has(t, a.Log(), "https://"+address)
	stop(t, a)

	write(t, filepath.Join(directory, "web.yaml"), "tls_server_config:\n  cert_file: none.pem\n  key_file: key.pem\n")
	_, messages := output(t, 1, "up", "-c", filepath.Join(directory, "kaon.yaml"), "--cgroup-root", cgroup.Path, "--listen", address)
	has(t, messages, "none.pem")
}

// certificate writes a self-signed one for localhost, and its key.
func certificate(t *testing.T, directory string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(directory, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(directory, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}
