package console

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	f := func(line string, want Event, ok bool) {
		t.Helper()
		got, gotOK := Parse(line)
		if gotOK != ok || ok && got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v, %v", line, got, gotOK, want, ok)
		}
	}
	f("KAON:H 6.1.0-50-cloud-amd64\r\n", Event{Kind: Hello, Text: "6.1.0-50-cloud-amd64"}, true)
	f("KAON:B ./bpf", Event{Kind: Begin, Package: "./bpf"}, true)
	f("KAON:E ./bpf -1 1500", Event{Kind: End, Package: "./bpf", Code: -1, Elapsed: 1500 * time.Millisecond}, true)
	f("KAON:D", Event{Kind: Done}, true)
	f("KAON:O ", Event{Kind: Output}, true)
	f("[    1.5] random: crng doneKAON:D\r", Event{Kind: Done}, true)
	// What a test prints is output, whatever it says.
	f("KAON:O KAON:E ./bpf 0 1", Event{Kind: Output, Text: "KAON:E ./bpf 0 1"}, true)
	f("KAON:O   indented", Event{Kind: Output, Text: "  indented"}, true)

	f("", Event{}, false)
	f("[    0.0] Linux version", Event{}, false)
	f("KAON:", Event{}, false)
	f("KAON:X y", Event{}, false)
	f("KAON:B", Event{}, false)
	f("KAON:B two words", Event{}, false)
	f("KAON:E ./bpf", Event{}, false)
	f("KAON:E ./bpf x 1", Event{}, false)
	f("KAON:E ./bpf 0 -1", Event{}, false)
	f("KAON:D more", Event{}, false)
	f("KAON:Ox", Event{}, false)
}

func TestCopyKeepsLines(t *testing.T) {
	f := func(in string, want ...string) {
		t.Helper()
		var out strings.Builder
		if err := NewWriter(&out).Copy(strings.NewReader(in)); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			event, ok := Parse(line)
			if !ok || event.Kind != Output {
				t.Fatalf("unexpected line %q", line)
			}
			got = append(got, event.Text)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || len(got) != len(want) {
			t.Errorf("Copy(%.40q) = %.80q, want %.80q", in, got, want)
		}
	}
	f("")
	f("a\n", "a")
	f("a\n\nb", "a", "", "b")
	f("KAON:D\n", "KAON:D")
	long := strings.Repeat("x", maxLine)
	f(long+"y\n", long, "y")
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"KAON:H 5.10", "KAON:B ./bpf", "KAON:E ./bpf 1 20", "KAON:O text\r\n", "xKAON:D", "KAON:W no bpf"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		event, ok := Parse(line)
		if !ok {
			return
		}
		again, ok := Parse(event.String())
		if !ok || again != event {
			t.Errorf("%q parses as %+v, written again as %q and parsed as %+v, %v", line, event, event.String(), again, ok)
		}
	})
}
