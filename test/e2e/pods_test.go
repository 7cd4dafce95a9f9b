package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kaon-project/kaon/test/sandbox"
)

// child makes a cgroup below another; it is removed before it.
func child(t *testing.T, parent *sandbox.Cgroup, name string) *sandbox.Cgroup {
	t.Helper()
	c, err := parent.Child(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// containerID makes the id of a container.
func containerID(number int) string { return fmt.Sprintf("%064x", number) }

// On a node, kaon run needs no rights in the cluster: the names of log files tell.
func TestPodNamesOfLogs(t *testing.T) {
	cgroup := needCgroup(t)
	const uid = "8dbc1f1e-2c8a-4c9a-9f5e-0d2f4b1a7c33"
	logs := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(logs, "pods", "shop_web-0_"+uid), 0o755), os.Mkdir(filepath.Join(logs, "containers"), 0o755),
		os.Symlink("/nowhere", filepath.Join(logs, "containers", "web-0_shop_app-"+containerID(2)+".log"))); err != nil {
		t.Fatal(err)
	}
	pod := child(t, child(t, cgroup, "kubepods"), "pod"+uid)
	pause, container := child(t, pod, containerID(1)), child(t, pod, containerID(2))
	// Such a /var/log is seen by this process only.
	command := kaon("run", "exec", "--cgroup-root", cgroup.Path, "-o", "openmetrics", "--for", "1s", "--filter", "namespace=shop")
	command.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /var/log && exec "$@"`, logs}, command.Args...)
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare")
	}
	command.Path = unshare
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %s", err, messages.String())
			}
			running = false
		case <-ctx.Done():
			t.Fatal("kaon run does not end")
		case <-time.After(20 * time.Millisecond):
			runs(t, pause, 1)
			runs(t, container, 1)
			runs(t, cgroup, 1)
		}
	}
	samples := parse(t, out.String(), openMetricsType)
	app := sum(samples, "process_starts_total", "namespace", "shop", "pod", "web-0", "container", "app")
	sandboxed := sum(samples, "process_starts_total", "namespace", "shop", "pod", "web-0", "container", "POD")
	if app < 3 || sandboxed < 3 || sum(samples, "process_starts_total") != app+sandboxed {
		t.Errorf("%s%s", out.String(), messages.String())
	}
}
