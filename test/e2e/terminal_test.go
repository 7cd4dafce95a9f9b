package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/test/sandbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

// openTerminal returns the two ends of a pseudo-terminal of 100 x 30 cells.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { theirs.Close() })
	if err := unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// The live view draws, and ends at Ctrl-C.
func TestTerminal(t *testing.T) {
	cgroup := needCgroup(t)
	for _, arguments := range [][]string{{"run", "exec", "--cgroup-root", cgroup.Path, "--interval", "200ms"}, {"top", "--interval", "200ms"}} {
		t.Run(arguments[0], func(t *testing.T) {
			ours, theirs := openTerminal(t)
			if arguments[0] == "top" {
				a := up(t, cgroup, "exec")
				arguments = append(arguments, "--url", a.URL)
			}
			command := kaon(arguments...)
			command.Stdin, command.Stdout, command.Stderr = theirs, theirs, theirs
			command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			theirs.Close()
			var screen sandbox.Output
			go func() {
				b := make([]byte, 4096)
				for {
					n, err := ours.Read(b)
					_, _ = screen.Write(b[:n])
					if err != nil {
						return
					}
				}
			}()
			ended := make(chan error, 1)
			go func() { ended <- command.Wait() }()
			want := "process_starts_total"
			eventually(t, "the view shows "+want, func() bool {
				_ = cgroup.Run("true")
				return strings.Count(screen.String(), want) >= 2 && strings.Contains(screen.String(), "\x1b[H")
			})
			// As a terminal does at Ctrl-C.
			if _, err := ours.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("%v: %q", err, screen.String())
				}
			case <-time.After(5 * time.Second):
				_ = command.Process.Kill()
				t.Errorf("it does not end at Ctrl-C: %q", screen.String())
			}
			for line := range strings.SplitSeq(screen.String(), "\n") {
				visible := strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "", "\x1b[K", "", "\x1b[H", "", "\x1b[J", "", "\x1b[2J", "", "\r", "").Replace(line)
				if len([]rune(visible)) > 100 {
					t.Errorf("wider than the terminal: %q", visible)
				}
			}
		})
	}
}
