package helm

import (
	"bufio"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/kaon-project/kaon/test/sandbox"
)

var bannerLine = regexp.MustCompile(`^(up|degraded|down) +(\S+)`)

// With the chart's capabilities each Program of the default set runs as it does with all of them. The agent is root in
// a network and a cgroup namespace of its own, as in a container, and measures a cgroup of the test's.
func TestCapabilitiesSuffice(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv")
	}
	binary, err := sandbox.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	scope, err := sandbox.NewCgroup("chart")
	if err != nil {
		t.Skip("needs a cgroup v2:", err)
	}
	defer func() {
		if err := scope.Remove(); err != nil {
			t.Error(err)
		}
	}()
	states := func(capabilities string) map[string]string {
		command := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "--cgroup", "--", "sh", "-c", `ip link set lo up && exec "$@"`, "sh",
			"setpriv", "--bounding-set", capabilities, "--", binary, "up", "--cgroup-root", scope.Path, "--log-level", "error",
			// As in the DaemonSet, an address in brackets may be of either kind.
			"--listen=[127.0.0.2]:9497", "--listen=127.0.0.1:9497")
		out, err := command.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		var all strings.Builder
		lines := bufio.NewScanner(io.TeeReader(out, &all))
		for lines.Scan() {
			if m := bannerLine.FindStringSubmatch(lines.Text()); m != nil {
				found[m[2]] = m[1]
			}
			if strings.HasPrefix(lines.Text(), "look:") {
				_ = command.Process.Signal(syscall.SIGTERM)
			}
		}
		if err := command.Wait(); err != nil || len(found) == 0 {
			t.Fatalf("kaon up with capabilities %s: %v\n%s", capabilities, err, &all)
		}
		return found
	}
	added := get[*appsv1.DaemonSet](t, parse(t, template(t)), "DaemonSet/kaon").Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add
	set := "-all"
	for _, c := range added {
		set += ",+" + strings.ToLower(string(c))
	}
	with, whole := states(set), states("+all")
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if with[name] != whole[name] {
			t.Errorf("%s is %s with the chart's capabilities, %s with all", name, with[name], whole[name])
		}
	}
	// It is looked at closely enough to see what lacks.
	if less := states("-all,+bpf"); maps.Equal(less, whole) {
		t.Error("the same runs with CAP_BPF alone")
	}
}
