package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const pluginDirectory = "/usr/lib/cni"

// Node is a machine with kubelet, containerd and kube-proxy.
type Node struct {
	machine    *machine
	number     int
	containerd *process
	kubelet    *process
}

// Name is the node's in Kubernetes: node1, node2, ...
func (n *Node) Name() string { return n.machine.name }

// IP is the node's address.
func (n *Node) IP() string { return "10.77.0." + strconv.Itoa(10+n.number) }

// CgroupRoot is the directory of the unified hierarchy that all pods of the node are below, and nothing else.
func (n *Node) CgroupRoot() string {
	c := n.machine.cluster.cgroups
	return filepath.Join(c.unified, c.name, n.Name())
}

// PID is that of the process that holds the node's mount and network namespaces.
func (n *Node) PID() int { return n.machine.pid() }

// Command returns a command in the node's mount and network namespaces, in a cgroup outside of the node's pods.
func (n *Node) Command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	return n.machine.enter(ctx, name, arguments...)
}

// Run runs a command in the node to its end and returns what it wrote to standard output.
func (n *Node) Run(ctx context.Context, name string, arguments ...string) (string, error) {
	return n.machine.run(ctx, name, arguments...)
}

// Dial connects from the node's network. The address has no host name.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.machine.dial(ctx, network, address)
}

// WriteStaticPod gives kubelet a pod that it runs by itself. The API server gets a mirror of it, named NAME-NODE.
func (n *Node) WriteStaticPod(manifest string) error {
	list, err := objects(manifest)
	if err != nil {
		return err
	}
	if len(list) != 1 || list[0].GetKind() != "Pod" {
		return errors.New("the manifest of a static pod is one Pod")
	}
	// Kubelet takes all that begins with a brace for JSON.
	content, err := list[0].MarshalJSON()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.machine.dir, "static-pods", list[0].GetName()+".json"), content, 0o644)
}

func (c *Cluster) startNodes(ctx context.Context, count int) error {
	if count > 9 {
		return fmt.Errorf("%d nodes are more than 9", count)
	}
	images := make(chan error, 1)
	archive := filepath.Join(c.Dir, "workload.tar")
	go func() { images <- WriteWorkloadImage(ctx, archive) }()
	for i := range count {
		n, err := c.newNode(ctx, i+1)
		if err != nil {
			return errors.Join(err, <-images)
		}
		c.nodes = append(c.nodes, n)
	}
	if err := <-images; err != nil {
		return err
	}
	if err := c.LoadImage(ctx, archive); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := n.join(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		err := wait(ctx, n.Name(), []*process{n.containerd, n.kubelet}, n.ready)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
		}
	}
	// Without it no pod is admitted.
	return wait(ctx, "the service account default", nil, func(ctx context.Context) error {
		_, err := c.api.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func (n *Node) ready(ctx context.Context) error {
	node, err := n.machine.cluster.api.client.CoreV1().Nodes().Get(ctx, n.Name(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	message := "it has no condition Ready"
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if message = condition.Message; condition.Status == corev1.ConditionTrue {
				message = ""
			}
		}
	}
	if message == "" {
		for _, taint := range node.Spec.Taints {
			message += "it has the taint " + taint.Key + " "
		}
	}
	if message != "" {
		return errors.New(message)
	}
	return nil
}

// newNode makes the node's machine and network, and starts containerd.
func (c *Cluster) newNode(ctx context.Context, number int) (*Node, error) {
	name := "node" + strconv.Itoa(number)
	n := &Node{number: number}
	var err error
	if n.machine, err = c.newMachine(ctx, name); err != nil {
		return nil, err
	}
	if err := c.cgroups.mkdir(filepath.Join(c.name, name)); err != nil {
		return nil, err
	}
	// A cable to the control plane, which passes on what pods of different nodes have to say.
	port := strconv.Itoa(n.machine.pid())
	err = c.control.lines(ctx, `
		ip link add `+name+` type veth peer name eth0 netns `+port+`
		ip link set `+name+` master nodes up`)
	if err != nil {
		return nil, err
	}
	err = n.machine.lines(ctx, `
		ip addr add `+n.IP()+`/24 dev eth0
		ip link set eth0 up
		ip route add default via `+controlAddress+`
		sysctl -q -w net.ipv4.ip_forward=1`)
	if err != nil {
		return nil, err
	}
	// Services must also work between pods of one node. Not every kernel has this.
	_, _ = n.Run(ctx, "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=1")
	if _, err := c.control.run(ctx, "ip", "route", "add", n.pods(), "via", n.IP()); err != nil {
		return nil, err
	}
	if err := n.configure(); err != nil {
		return nil, err
	}
	n.containerd, err = n.machine.daemon("containerd", "--config", filepath.Join(n.machine.dir, "containerd.toml"))
	return n, err
}

// pods is the network of the node's pods.
func (n *Node) pods() string { return fmt.Sprintf("10.88.%d.0/24", n.number) }

// configure writes the files of containerd, kubelet and the network plugins.
func (n *Node) configure() error {
	c := n.machine.cluster
	user := "system:node:" + n.Name()
	for _, s := range []subject{
		{name: n.Name(), user: user, organizations: []string{"system:nodes"}},
		{name: n.Name() + "-server", user: user, organizations: []string{"system:nodes"}, addresses: []string{n.IP()}, hosts: []string{n.Name()}},
	} {
		if err := c.authority.issue(s); err != nil {
			return err
		}
	}
	if err := c.writeKubeconfig(n.Name(), n.Name(), apiServer); err != nil {
		return err
	}
	for _, name := range []string{"cni", "static-pods"} {
		if err := os.Mkdir(filepath.Join(n.machine.dir, name), 0o755); err != nil {
			return err
		}
	}
	values := strings.NewReplacer("CLUSTER", c.Dir, "DIRECTORY", n.machine.dir, "NODE", n.Name(), "ADDRESS", n.IP(), "PODS", n.pods(),
		"CGROUP", "/"+c.name+"/"+n.Name(), "PLUGINS", pluginDirectory, "PAUSE", WorkloadImage)
	for path, content := range map[string]string{
		"containerd.toml":        containerdConfig,
		"cni/10-bridge.conflist": networkConfig,
		"kubelet.yaml":           kubeletConfig,
		"resolv.conf":            "nameserver 127.0.0.1\n",
	} {
		if err := os.WriteFile(filepath.Join(n.machine.dir, path), []byte(values.Replace(content)), 0o644); err != nil {
			return err
		}
	}
	return writeScript(filepath.Join(c.Dir, "enter-"+n.Name()), "nsenter", "--target", strconv.Itoa(n.PID()), "--mount", "--net", "--")
}

// join starts kubelet and kube-proxy.
func (n *Node) join() error {
	c := n.machine.cluster
	var err error
	n.kubelet, err = n.machine.daemon("kubelet", "--config="+filepath.Join(n.machine.dir, "kubelet.yaml"), "--kubeconfig="+filepath.Join(c.Dir, n.Name()+".kubeconfig"),
		"--hostname-override="+n.Name(), "--node-ip="+n.IP())
	if err != nil {
		return err
	}
	_, err = n.machine.daemon("kube-proxy", "--kubeconfig="+filepath.Join(c.Dir, "proxy.kubeconfig"), "--proxy-mode=iptables", "--cluster-cidr="+podNetwork,
		"--hostname-override="+n.Name(), "--conntrack-max-per-core=0", "--bind-address="+n.IP(),
		"--metrics-bind-address=127.0.0.1:10249", "--healthz-bind-address=127.0.0.1:10256")
	return err
}

// LoadImage imports an OCI archive into the containerd of every node.
func (c *Cluster) LoadImage(ctx context.Context, archive string) error {
	for _, n := range c.nodes {
		err := wait(ctx, "containerd of "+n.Name(), []*process{n.containerd}, func(ctx context.Context) error {
			_, err := n.Run(ctx, "ctr", "version")
			return err
		})
		if err != nil {
			return err
		}
		if _, err := n.Run(ctx, "ctr", "--namespace", "k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

// Machines may lack the right to lower oom_score_adj, hence restrict_oom_score_adj.
const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "PLUGINS"
    conf_dir = "DIRECTORY/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

const networkConfig = `{"cniVersion": "1.0.0", "name": "kaon", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: CLUSTER/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
address: ADDRESS
tlsCertFile: CLUSTER/pki/NODE-server.crt
tlsPrivateKeyFile: CLUSTER/pki/NODE-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: CGROUP
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
resolvConf: DIRECTORY/resolv.conf
volumePluginDir: /var/lib/kubelet/volumeplugins
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
fileCheckFrequency: 2s
syncFrequency: 5s
makeIPTablesUtilChains: false
staticPodPath: DIRECTORY/static-pods
`
