package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The cluster's networks exist in its own network namespaces only, so every cluster has the same.
const (
	controlAddress  = "10.77.0.1" // node N is 10.77.0.(10+N)
	apiServer       = controlAddress + ":6443"
	serviceNetwork  = "10.96.0.0/16"
	kubernetesIP    = "10.96.0.1"
	podNetwork      = "10.88.0.0/16" // node N has 10.88.N.0/24
	serviceAccounts = "https://kubernetes.default.svc.cluster.local"
)

// startControlPlane starts etcd and kube-apiserver; with nodes, also kube-controller-manager and kube-scheduler.
func (c *Cluster) startControlPlane(ctx context.Context, options Options) error {
	var err error
	if c.control, err = c.newMachine(ctx, "control"); err != nil {
		return err
	}
	err = c.control.lines(ctx, `
		ip link add nodes type bridge
		ip addr add `+controlAddress+`/24 dev nodes
		ip link set nodes up
		sysctl -q -w net.ipv4.ip_forward=1`)
	if err != nil {
		return err
	}
	etcd, err := c.control.daemon("etcd", "--data-dir", filepath.Join(c.Dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	if err := c.certificates(); err != nil {
		return err
	}
	c.etcd, c.apiServerFlags = etcd, append(c.flagsOfAPIServer(), options.APIServerFlags...)
	if c.apiServer, err = c.control.daemon("kube-apiserver", c.apiServerFlags...); err != nil {
		return err
	}
	if err := c.serveProxy(); err != nil {
		return err
	}
	if err := c.scripts(); err != nil {
		return err
	}
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return err
	}
	// Clients in this process need no proxy.
	c.config.Host = "https://" + apiServer
	c.config.Dial = c.control.dial
	c.config.QPS = -1
	if c.api, err = newAPI(c.config); err != nil {
		return err
	}
	if err := c.waitAPIServer(ctx); err != nil || options.Nodes == 0 {
		return err
	}
	return c.startControllers()
}

func (c *Cluster) waitAPIServer(ctx context.Context) error {
	return wait(ctx, "kube-apiserver", []*process{c.etcd, c.apiServer}, func(ctx context.Context) error {
		body, err := c.api.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
}

// StopAPIServer kills kube-apiserver: what it knew is in etcd. It must not be called while StartAPIServer runs.
func (c *Cluster) StopAPIServer() error {
	err := c.apiServer.command.Process.Kill()
	<-c.apiServer.done
	return err
}

// StartAPIServer starts kube-apiserver again, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	var err error
	if c.apiServer, err = c.control.daemon("kube-apiserver", c.apiServerFlags...); err != nil {
		return err
	}
	return c.waitAPIServer(ctx)
}

func (c *Cluster) flagsOfAPIServer() []string {
	pki := filepath.Join(c.Dir, "pki") + "/"
	return []string{
		"--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + controlAddress, "--bind-address=0.0.0.0", "--secure-port=6443",
		"--tls-cert-file=" + pki + "apiserver.crt", "--tls-private-key-file=" + pki + "apiserver.key", "--client-ca-file=" + pki + "ca.crt",
		"--service-account-key-file=" + pki + "accounts.pub", "--service-account-signing-key-file=" + pki + "accounts.key",
		"--service-account-issuer=" + serviceAccounts, "--service-cluster-ip-range=" + serviceNetwork,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-client-certificate=" + pki + "apiserver-kubelet.crt", "--kubelet-client-key=" + pki + "apiserver-kubelet.key",
		"--kubelet-certificate-authority=" + pki + "ca.crt", "--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + pki + "front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki + "front-proxy.crt", "--proxy-client-key-file=" + pki + "front-proxy.key",
	}
}

func (c *Cluster) startControllers() error {
	pki := filepath.Join(c.Dir, "pki") + "/"
	access := func(user string) []string {
		file := filepath.Join(c.Dir, user+".kubeconfig")
		return []string{"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file,
			"--leader-elect=false", "--bind-address=127.0.0.1"}
	}
	_, err := c.control.daemon("kube-controller-manager", append(access("controller-manager"),
		"--service-account-private-key-file="+pki+"accounts.key", "--root-ca-file="+pki+"ca.crt",
		"--cluster-signing-cert-file="+pki+"ca.crt", "--cluster-signing-key-file="+pki+"ca.key",
		"--use-service-account-credentials=true", "--allocate-node-cidrs=false", "--cluster-cidr="+podNetwork)...)
	if err != nil {
		return err
	}
	_, err = c.control.daemon("kube-scheduler", access("scheduler")...)
	return err
}

// certificates makes what the control plane needs to trust and be trusted.
func (c *Cluster) certificates() error {
	pki := filepath.Join(c.Dir, "pki")
	var err error
	if c.authority, err = newAuthority(pki, "ca"); err != nil {
		return err
	}
	front, err := newAuthority(pki, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := front.issue(subject{name: "front-proxy", user: "front-proxy-client"}); err != nil {
		return err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(pki, "accounts"), accounts); err != nil {
		return err
	}
	kubernetes := "kubernetes.default.svc"
	for _, s := range []subject{
		{name: "apiserver", user: "kube-apiserver", addresses: []string{controlAddress, kubernetesIP, "127.0.0.1"}, hosts: []string{"localhost", kubernetes, kubernetes + ".cluster.local"}},
		{name: "apiserver-kubelet", user: "apiserver-kubelet", organizations: []string{"system:masters"}},
		{name: "admin", user: "admin", organizations: []string{"system:masters"}},
		{name: "controller-manager", user: "system:kube-controller-manager"},
		{name: "scheduler", user: "system:kube-scheduler"},
		{name: "proxy", user: "system:kube-proxy"},
	} {
		if err := c.authority.issue(s); err != nil {
			return err
		}
	}
	for _, user := range []string{"controller-manager", "scheduler", "proxy"} {
		if err := c.writeKubeconfig(user, user, apiServer); err != nil {
			return err
		}
	}
	return c.writeKubeconfig("inside", "admin", apiServer)
}

// writeKubeconfig writes NAME.kubeconfig for a user and a server's address. It has everything in it.
func (c *Cluster) writeKubeconfig(name, user, server string) error {
	pki := filepath.Join(c.Dir, "pki")
	config := clientcmdapi.NewConfig()
	read := func(name string) (content []byte) {
		content, err := os.ReadFile(filepath.Join(pki, name))
		if err != nil {
			return nil
		}
		return content
	}
	config.Clusters["kaon"] = &clientcmdapi.Cluster{Server: "https://" + server, CertificateAuthorityData: read("ca.crt")}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: read(user + ".crt"), ClientKeyData: read(user + ".key")}
	config.Contexts["kaon"] = &clientcmdapi.Context{Cluster: "kaon", AuthInfo: user}
	config.CurrentContext = "kaon"
	return clientcmd.WriteToFile(*config, filepath.Join(c.Dir, name+".kubeconfig"))
}

// InsideKubeconfig returns the path of an administrator's kubeconfig for processes on nodes, and for Prometheus.
func (c *Cluster) InsideKubeconfig() string { return filepath.Join(c.Dir, "inside.kubeconfig") }

// Kubeconfig returns the path of an administrator's kubeconfig that works on this machine as long as this process lives.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "admin.kubeconfig") }

// Config returns an administrator's access for clients in this process.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Dial connects to an address inside the cluster: a pod's, a node's or the control plane's, by number.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.control.dial(ctx, network, address)
}

// serveProxy lets processes of this machine reach the API server at an address of its loopback interface.
func (c *Cluster) serveProxy() error {
	var err error
	if c.proxy, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	go func() {
		for {
			client, err := c.proxy.Accept()
			if err != nil {
				return
			}
			go c.forward(client)
		}
	}()
	return c.writeKubeconfig("admin", "admin", c.proxy.Addr().String())
}

func (c *Cluster) forward(client net.Conn) {
	defer client.Close()
	server, err := c.control.dial(context.Background(), "tcp", apiServer)
	if err != nil {
		c.log.Debug("proxy", "error", err)
		return
	}
	defer server.Close()
	ends := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			c.log.Debug("proxy", "error", err)
		}
		ends <- struct{}{}
	}
	go pass(server, client)
	go pass(client, server)
	<-ends
}

// scripts writes what people like to have.
func (c *Cluster) scripts() error {
	kubectl, err := Binary("kubectl")
	if err != nil {
		return err
	}
	return writeScript(filepath.Join(c.Dir, "kubectl"), kubectl, "--kubeconfig", c.Kubeconfig())
}

func writeScript(path string, command ...string) error {
	content := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", strings.Join(command, " "))
	return os.WriteFile(path, []byte(content), 0o755)
}
