package docs

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/test/sandbox"
)

var update = flag.Bool("update", false, "write what the commands answer into the pages")

// executed are the pages whose commands are run: those in blocks of the language "console". Blocks with a file's name
// ("```c hello.bpf.c") are written to that file when their turn comes.
var executed = []string{"../README.md", "tutorial/first-program.md", "how-to/change-metrics.md", "how-to/debug-a-program.md", "how-to/tls-and-passwords.md", "how-to/profile.md", "how-to/check-an-exposition.md",
	"lab/00-openmetrics.md", "lab/01-the-machine.md", "lab/02-the-story.md", "lab/03-launch-watch-edit-react.md", "lab/04-a-new-metric.md", "lab/05-ebpf.md"}

// shop is what runs in the cgroup that the pages look at.
const shop = `while :; do cat /etc/hostname /no/such/file; sleep 0.1; done >/dev/null 2>&1`

// Every command of these pages does what the page shows. What runs besides them is not seen: `kaon run`
// and `kaon up` are told to look at a cgroup of the test's own, in a network namespace of the test's own.
func TestCommands(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range []string{"go", "ip", "unshare", "curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs", tool)
		}
	}
	if !hasClang() {
		t.Skip("needs clang")
	}
	bin := t.TempDir()
	if _, err := sandbox.Build(context.Background(), bin); err != nil {
		t.Fatal(err)
	}
	python := pythonWithClient()
	if python == "" {
		t.Skip("needs python3-prometheus-client")
	}
	if err := os.Symlink(python, filepath.Join(bin, "python3")); err != nil {
		t.Fatal(err)
	}
	for _, path := range executed {
		t.Run(filepath.Base(path), func(t *testing.T) { execute(t, path, bin) })
	}
}

// pythonWithClient returns the path of a Python that has Prometheus' client library, "" if there is none: the first in
// the PATH may be another than the system's.
func pythonWithClient() string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import prometheus_client").Run() == nil {
			path, err := exec.LookPath(name)
			if err == nil {
				return path
			}
		}
	}
	return ""
}

func hasClang() bool {
	for _, name := range []string{os.Getenv("KAON_CLANG"), "clang-19", "clang"} {
		if _, err := exec.LookPath(name); name != "" && err == nil {
			return true
		}
	}
	return false
}

// service is what runs beside the commands: a systemd service by its cgroup's name.
type service struct{ name, script string }

// serviceOf returns the shop, or on the pages of the lab the service that `kaon lab` becomes.
func serviceOf(path string) service {
	if filepath.Dir(path) == "lab" {
		return service{"lab.service", ":"}
	}
	return service{"shop.service", shop}
}

func execute(t *testing.T, path, bin string) {
	outer, err := sandbox.NewCgroup("docs")
	if errors.Is(err, sandbox.ErrNoCgroup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t, bin, outer, serviceOf(path))
	page := read(t, path)
	var written strings.Builder
	last := 0
	for _, b := range blocks(page) {
		switch {
		case b.language == "console":
			written.WriteString(page[last:b.start])
			written.WriteString(s.console(b.text, path))
			last = b.end
		case b.language == "c" && b.name == "":
			s.shown(b, path)
		case b.name != "" && slices.Contains([]string{"c", "yaml", "python", "text"}, b.language):
			s.write(b)
		}
	}
	written.WriteString(page[last:])
	if s.commands == 0 {
		t.Errorf("%s has no commands", path)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(written.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// shown checks C that a page shows: what a command wrote, or on the lab's pages the part of its program.
func (s *shell) shown(b block, path string) {
	if filepath.Dir(path) == "lab" {
		const source = "../internal/lab/kernelview/bpf/lab.bpf.c"
		text := read(s.t, source)
		for part := range strings.SplitSeq(strings.TrimSpace(b.text), "\n\n") {
			if !strings.Contains(text, part) {
				s.t.Errorf("%s shows what is not in %s:\n%s", path, source, part)
			}
		}
		return
	}
	if got := read(s.t, filepath.Join(s.directory, "hello.bpf.c")); got != b.text {
		s.t.Errorf("%s does not show what the command writes:\n%s", path, got)
	}
}

// shell is where the commands of a page are typed.
type shell struct {
	t         *testing.T
	directory string
	in        io.Writer
	lines     chan string
	commands  int
}

func newShell(t *testing.T, bin string, outer *sandbox.Cgroup, beside service) *shell {
	t.Helper()
	s := &shell{t: t, directory: t.TempDir(), lines: make(chan string, 10000)}
	inner := filepath.Join(outer.Path, beside.name)
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	// The kernel kills the shell with the thread that began it.
	runtime.LockOSThread()
	shell := exec.Command("unshare", "--net", "bash", "--noprofile", "--norc")
	shell.Dir = s.directory
	shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "SERVICE="+inner, "SERVICE_SCRIPT="+beside.script)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	shell.Stderr = shell.Stdout
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	s.in = in
	go func() {
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			s.lines <- scanner.Text()
		}
		close(s.lines)
	}()
	t.Cleanup(func() {
		defer runtime.UnlockOSThread()
		// A terminated agent unloads its programs; what does not end by itself is killed.
		_ = unix.Kill(-shell.Process.Pid, unix.SIGTERM)
		_ = in.Close()
		kill := time.AfterFunc(5*time.Second, func() { _ = unix.Kill(-shell.Process.Pid, unix.SIGKILL) })
		for range s.lines {
		}
		_ = shell.Wait()
		kill.Stop()
		// A lab tidies up, too: it leaves the service's cgroup as it was.
		for range 500 {
			if events, err := os.ReadFile(filepath.Join(inner, "cgroup.events")); err != nil || !strings.Contains(string(events), "populated 1") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		_ = unix.Kill(-shell.Process.Pid, unix.SIGKILL)
		for range 100 {
			if err := os.Remove(inner); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := outer.Remove(); err != nil {
			t.Error(err)
		}
	})
	s.run(`ip link set lo up
ip link add eth0 type veth peer name eth1 && ip link set eth0 up && ip link set eth1 up
kaon() {
	case $1 in
	run|up) set -- "$@" --cgroup-root "$SERVICE" ;;
	lab) [ $BASHPID = $$ ] || echo $BASHPID >"$SERVICE/cgroup.procs" ;;
	esac
	# In the background $! is the command itself, not a shell around it.
	[ $BASHPID = $$ ] || exec kaon "$@"
	command kaon "$@"
}
mkdir bin; ln -s "$(type -P kaon)" bin/kaon
bin/kaon() { kaon "$@"; }
make() { command bin/kaon up --log-level warn --cgroup-root "$SERVICE"; }
sh -c 'echo $$ > $SERVICE/cgroup.procs; exec sh -c "$SERVICE_SCRIPT"' &
`)
	return s
}

// run types a command and returns what it answered.
func (s *shell) run(command string) []string {
	s.t.Helper()
	const done = "kaon-shell-done"
	if _, err := fmt.Fprintf(s.in, "%s\necho; echo %s\n", command, done); err != nil {
		s.t.Fatal(err)
	}
	var out []string
	limit := time.After(time.Minute)
	for {
		select {
		case line, open := <-s.lines:
			if !open {
				s.t.Fatalf("%s: the shell ended:\n%s", command, strings.Join(out, "\n"))
			}
			if line == done {
				return out[:max(len(out)-1, 0)]
			}
			out = append(out, strings.TrimRight(line, " "))
		case <-limit:
			s.t.Fatalf("%s: no end after a minute:\n%s", command, strings.Join(out, "\n"))
		}
	}
}

// background starts a command that goes on and returns what it says until it is quiet.
func (s *shell) background(command string) []string {
	s.t.Helper()
	file := filepath.Join(s.directory, fmt.Sprintf(".background-%d", s.commands))
	s.run(strings.TrimSuffix(command, "&") + " >" + file + " 2>&1 &")
	var text string
	limit := time.Now().Add(20 * time.Second)
	for quiet := 0; (quiet < 5 || text == "") && time.Now().Before(limit); quiet++ {
		time.Sleep(200 * time.Millisecond)
		data, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		if string(data) != text {
			text, quiet = string(data), 0
		}
	}
	return strings.Split(strings.TrimRight(text, "\n"), "\n")
}

func (s *shell) write(b block) {
	if err := os.WriteFile(filepath.Join(s.directory, b.name), []byte(b.text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.run("sleep 0.5") // a running agent takes it up
}

// console runs the commands of a block, compares what they answer with what the page shows, and returns the
// block as it would be with today's answers.
func (s *shell) console(text, path string) string {
	var now strings.Builder
	parts := regexp.MustCompile(`(?m)^\$ `).Split(text, -1)
	for _, part := range parts[1:] {
		command, shown, _ := strings.Cut(part, "\n")
		for strings.HasSuffix(command, "\\") {
			var more string
			more, shown, _ = strings.Cut(shown, "\n")
			command += "\n" + more
		}
		s.commands++
		var out []string
		if strings.HasSuffix(command, "&") || command == "make run" {
			out = s.background(command)
		} else {
			out = s.run(command)
		}
		s.t.Logf("$ %s\n%s", command, strings.Join(out, "\n"))
		answered := map[string]bool{"": true, "...": true}
		for _, line := range out {
			answered[words(line)] = true
		}
		var missing []string
		for line := range strings.Lines(shown) {
			if !answered[words(line)] {
				missing = append(missing, strings.TrimSpace(line))
			}
		}
		fmt.Fprintf(&now, "$ %s\n", command)
		// What somebody shortened stays short.
		if len(missing) == 0 && strings.Contains(shown, "...\n") {
			now.WriteString(shown)
			continue
		}
		for _, line := range out {
			now.WriteString(line + "\n")
		}
		if *update {
			continue
		}
		for _, line := range missing {
			s.t.Errorf("%s: %s\ndoes not answer: %s\nbut:\n%s", path, command, line, strings.Join(out, "\n"))
		}
	}
	return now.String()
}

var (
	notWords = regexp.MustCompile(`^([-≤≥…█▉▊▋▌▍▎▏.,]*|[nµm]?s|[KMGT]iB|bytes|[kMG])$`)
	number   = regexp.MustCompile(`[0-9][0-9a-z.,:+%-]*`)
)

// words leaves out of a line what is different each time: numbers, units, bars.
func words(line string) string {
	var left []string
	for _, word := range strings.Fields(line) {
		if word = number.ReplaceAllString(word, ""); !notWords.MatchString(word) {
			left = append(left, word)
		}
	}
	return strings.Join(left, " ")
}
