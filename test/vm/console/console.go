// Package console is what the host and the guest of the kernel matrix agree
// on: the plan that the guest finds in its initramfs, and the lines by which it
// reports over the serial console.
//
// Every line of the guest carries a mark and a kind. A test's output is always
// behind the kind "output", so that no test can forge a result, and what the
// kernel prints in front of a mark is ignored.
package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PlanPath is where the guest finds its Plan, as JSON.
const PlanPath = "/kaon-vm.json"

// Plan says what the guest runs.
type Plan struct {
	// Modules are kernel modules in the initramfs, loaded in order as far as
	// the running kernel accepts them.
	Modules  []string
	Packages []PackagePlan
}

// PackagePlan is one test binary.
type PackagePlan struct {
	Name string // as in the reports: "./internal/engine"
	Dir  string // working directory
	Path string // the test binary
	Args []string
}

// Kind says what a line of the guest means.
type Kind byte

// The kinds of lines.
const (
	Hello  Kind = 'H' // Text: the kernel's release; the mounts are done
	Begin  Kind = 'B' // Package
	Output Kind = 'O' // Text: one line of the running package
	End    Kind = 'E' // Package, Code, Elapsed
	Warn   Kind = 'W' // Text: something that init could not set up
	Done   Kind = 'D' // everything ran
)

// mark starts each line of the guest, followed by the kind and a blank.
const mark = "KAON:"

// Event is one line of the guest.
type Event struct {
	Kind    Kind
	Package string
	Text    string
	// Code is the exit code of a package's tests, or -1 where a signal ended it.
	Code    int
	Elapsed time.Duration
}

// Parse reads one line of the serial console. It reports false for everything
// that the guest's init has not written, as the kernel's own messages.
func Parse(line string) (Event, bool) {
	line = strings.TrimRight(line, "\r\n")
	_, line, found := strings.Cut(line, mark)
	if !found || len(line) == 0 {
		return Event{}, false
	}
	kind := Kind(line[0])
	rest := line[1:]
	if rest != "" && rest[0] != ' ' {
		return Event{}, false
	}
	rest = strings.TrimPrefix(rest, " ")
	switch kind {
	case Hello, Output, Warn:
		return Event{Kind: kind, Text: rest}, true
	case Begin:
		if rest == "" || strings.ContainsRune(rest, ' ') {
			return Event{}, false
		}
		return Event{Kind: kind, Package: rest}, true
	case End:
		fields := strings.Split(rest, " ")
		if len(fields) != 3 || fields[0] == "" {
			return Event{}, false
		}
		code, err := strconv.Atoi(fields[1])
		if err != nil {
			return Event{}, false
		}
		milliseconds, err := strconv.ParseInt(fields[2], 10, 32)
		if err != nil || milliseconds < 0 {
			return Event{}, false
		}
		return Event{Kind: kind, Package: fields[0], Code: code, Elapsed: time.Duration(milliseconds) * time.Millisecond}, true
	case Done:
		return Event{Kind: kind}, rest == ""
	}
	return Event{}, false
}

// String is the line, without its end, that Parse reads.
func (e Event) String() string {
	switch e.Kind {
	case Begin:
		return fmt.Sprintf("%s%c %s", mark, e.Kind, e.Package)
	case End:
		return fmt.Sprintf("%s%c %s %d %d", mark, e.Kind, e.Package, e.Code, e.Elapsed.Milliseconds())
	case Done:
		return fmt.Sprintf("%s%c", mark, e.Kind)
	default:
		return fmt.Sprintf("%s%c %s", mark, e.Kind, e.Text)
	}
}

// Writer writes events to the console. It may be used by several goroutines.
type Writer struct {
	mu  sync.Mutex
	out io.Writer
}

// NewWriter returns a Writer to out, usually the serial console.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write writes one event as one line. Line ends within become blanks.
func (w *Writer) Write(event Event) error {
	event.Text = strings.ReplaceAll(event.Text, "\n", " ")
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := io.WriteString(w.out, event.String()+"\n")
	return err
}

// maxLine bounds the bytes that Copy holds before it breaks a line in two.
const maxLine = 64 << 10

// Copy writes each line of r as an output event until r ends. A last line
// without an end is written too.
func (w *Writer) Copy(r io.Reader) error {
	buffer := make([]byte, 0, 4096)
	chunk := make([]byte, 32<<10)
	for {
		n, err := r.Read(chunk)
		buffer = append(buffer, chunk[:n]...)
		for {
			i := bytes.IndexByte(buffer, '\n')
			if i < 0 && len(buffer) < maxLine {
				break
			}
			next := i + 1
			if i < 0 {
				i, next = len(buffer), len(buffer)
			}
			if werr := w.Write(Event{Kind: Output, Text: string(buffer[:i])}); werr != nil {
				return werr
			}
			buffer = buffer[:copy(buffer, buffer[next:])]
		}
		if err != nil {
			if len(buffer) > 0 {
				if werr := w.Write(Event{Kind: Output, Text: string(buffer)}); werr != nil {
					return werr
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}
