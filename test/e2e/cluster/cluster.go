// Package cluster runs a real Kubernetes cluster on this machine: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, and nodes with kubelet, kube-proxy, containerd and runc.
//
// The control plane and each node have network and mount namespaces of their own, in which /run, /var/lib and
// /var/log belong to the cluster; /proc, /tmp and the rest are the machine's. All processes are in one cgroup. When
// the cluster is stopped, or whoever started it dies, a process of its own kills what is in the cgroup, and with the
// processes go their namespaces and mounts.
package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

// Options of a cluster. Their zero values are the defaults.
type Options struct {
	// Nodes is the number of nodes, at most 9; 0 starts the control plane alone.
	Nodes int
	// Dir is a folder to be made for everything the cluster writes: a temporary one, if empty. It must not exist, its
	// path has no spaces, and it is removed with the cluster.
	Dir string
	// Keep leaves Dir where it is.
	Keep bool
	// Log gets what happens: nothing, if nil.
	Log *slog.Logger
	// APIServerFlags are added to kube-apiserver's.
	APIServerFlags []string
}

// Cluster is a running cluster. Its methods can be called concurrently.
type Cluster struct {
	// Dir has the log of each process in log/, and the scripts kubectl and node1, node2, ... for people.
	Dir string

	name      string
	log       *slog.Logger
	cgroups   *cgroups
	keeper    *keeper
	authority *authority
	control   *machine
	nodes     []*Node
	proxy     net.Listener
	config    *rest.Config
	api       *api

	etcd, apiServer *process
	apiServerFlags  []string

	mutex     sync.Mutex
	processes []*process
	stopped   bool
}

// Start starts a cluster and waits until its nodes are ready. The caller must Stop it. Errors that wrap ErrNoRoot,
// ErrNoBinaries, ErrNoRuntime or ErrNoCgroup tell what the machine lacks.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if err := Available(options.Nodes); err != nil {
		return nil, err
	}
	c := &Cluster{log: options.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	begin := time.Now()
	if err := c.begin(ctx, options); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.log.Info("cluster is ready", "after", time.Since(begin).Round(time.Millisecond), "nodes", len(c.nodes), "directory", c.Dir)
	return c, nil
}

// StartControlPlane starts etcd and kube-apiserver only: enough for clients, custom resources and controllers. Nothing
// schedules or runs pods, or collects garbage.
func StartControlPlane(ctx context.Context, options Options) (*Cluster, error) {
	options.Nodes = 0
	return Start(ctx, options)
}

// Available tells what the machine lacks to run a cluster.
func Available(nodes int) error {
	if os.Geteuid() != 0 {
		return ErrNoRoot
	}
	if _, err := unifiedMount(); err != nil {
		return err
	}
	binaries, tools := []string{"etcd", "kube-apiserver", "kubectl"}, []string{"nsenter", "ip", "sysctl"}
	if nodes > 0 {
		binaries = append(binaries, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
		tools = append(tools, "containerd", "ctr", "runc", "iptables", "conntrack", "socat", pluginDirectory+"/bridge", pluginDirectory+"/host-local", pluginDirectory+"/portmap")
	}
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: no %s", ErrNoRuntime, name)
		}
	}
	for _, name := range binaries {
		if _, err := Binary(name); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) begin(ctx context.Context, options Options) error {
	var number [4]byte
	if _, err := rand.Read(number[:]); err != nil {
		return err
	}
	c.name = "kaon-e2e-" + hex.EncodeToString(number[:])
	if err := c.makeDirectory(options.Dir); err != nil {
		return err
	}
	remove := c.Dir
	if options.Keep {
		remove = ""
	}
	var err error
	if c.keeper, err = newKeeper(ctx, c.name, remove); err != nil {
		return err
	}
	if c.cgroups, err = newCgroups(c.name); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx, options); err != nil {
		return err
	}
	if options.Nodes == 0 {
		return nil
	}
	return c.startNodes(ctx, options.Nodes)
}

func (c *Cluster) makeDirectory(directory string) error {
	if directory == "" {
		directory = filepath.Join(os.TempDir(), c.name)
	}
	directory, err := filepath.Abs(directory)
	if err != nil {
		return err
	}
	// It will be removed: it must not be somebody's.
	if err := os.Mkdir(directory, 0o755); err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	c.Dir = directory
	for _, name := range []string{"pki", "log", "etcd"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the cluster and removes all of it. It can be called again.
func (c *Cluster) Stop() error {
	c.mutex.Lock()
	stopped := c.stopped
	c.stopped = true
	c.mutex.Unlock()
	if stopped {
		return nil
	}
	begin := time.Now()
	if c.proxy != nil {
		c.proxy.Close()
	}
	var err error
	if c.keeper != nil {
		err = c.keeper.stop()
	} else if c.Dir != "" {
		err = os.RemoveAll(c.Dir)
	}
	for _, p := range c.processes {
		<-p.done
	}
	c.cgroups.close()
	c.log.Info("cluster is gone", "after", time.Since(begin).Round(time.Millisecond))
	return err
}

// Nodes returns the nodes, by number.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Name is that of the cluster's cgroup at the top of each hierarchy. It is unique.
func (c *Cluster) Name() string { return c.name }

// keeper is the process that removes the cluster when this one ends.
type keeper struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  bytes.Buffer
}

func newKeeper(ctx context.Context, cgroup, directory string) (*keeper, error) {
	binary, err := ownBinary(ctx, "keeper")
	if err != nil {
		return nil, err
	}
	k := &keeper{command: exec.Command(binary, "sweep", cgroup, directory)}
	k.command.Dir = "/"
	k.command.Stderr = &k.output
	// It must survive what ends this process, for instance an interrupt from the terminal.
	k.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if k.input, err = k.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := k.command.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	return k, nil
}

func (k *keeper) stop() error {
	k.input.Close()
	if err := k.command.Wait(); err != nil {
		return fmt.Errorf("remove the cluster: %w: %s", err, k.output.String())
	}
	return nil
}
