package manifest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

type limits struct {
	Series int `json:"series,omitempty" minimum:"1"`
}

type entry struct {
	Source string          `json:"source"`
	Params map[string]Text `json:"params,omitempty"`
}

func (e *entry) UnmarshalJSON(data []byte) error {
	type long entry
	return UnmarshalShort(data, &e.Source, (*long)(e))
}

type config struct {
	limits
	Name    string            `json:"name,omitempty"`
	Number  int8              `json:"number,omitempty"`
	Count   uint16            `json:"count,omitempty"`
	Ratio   float64           `json:"ratio,omitempty" maximum:"2"`
	On      bool              `json:"on,omitempty"`
	Wait    time.Duration     `json:"wait,omitempty"`
	Timeout Duration          `json:"timeout,omitempty"`
	Nested  *limits           `json:"nested,omitempty"`
	List    []string          `json:"list,omitempty" maxItems:"3"`
	Map     map[string]int    `json:"map,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Any     any               `json:"any,omitempty"`
	Entries []entry           `json:"entries,omitempty"`
	Colour  string            `json:"colour,omitempty" enum:"red,green"`
	Text    Text              `json:"text,omitempty"`
}

func TestUnmarshal(t *testing.T) {
	f := func(text string, want config) {
		t.Helper()
		var got config
		if err := Unmarshal([]byte(text), "f", &got); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
	f("", config{})
	f("# only a comment", config{})
	f("{}", config{})
	f(`{"name": "json", "map": {"a": 1}}`, config{Name: "json", Map: map[string]int{"a": 1}})
	f("name: 'off'\nnumber: -128\ncount: 0xff\nratio: 1e-1\non: true", config{Name: "off", Number: -128, Count: 255, Ratio: 0.1, On: true})
	f("name: no", config{Name: "no"}) // YAML 1.1's booleans are text
	f("name: 2026-11-20", config{Name: "2026-11-20"})
	f("number: 1e2\ncount: 1_000", config{Number: 100, Count: 1000})
	f("wait: 90s\ntimeout: 1m", config{Wait: 90 * time.Second, Timeout: Duration(time.Minute)})
	f("series: 3\nnested: {series: 4}", config{limits: limits{3}, Nested: &limits{4}})
	f("list: [a, b]\nmap:\n", config{List: []string{"a", "b"}})
	f("list: []", config{List: []string{}})
	f("labels: {1: a, x.y/z: b}", config{Labels: map[string]string{"1": "a", "x.y/z": "b"}})
	f("any: {a: [1, true, x, null]}", config{Any: map[string]any{"a": []any{json.Number("1"), true, "x", nil}}})
	f("entries:\n- exec\n- source: x\n  params: {a: 10ms, b: 0x10, c: [1, d]}\n", config{Entries: []entry{{Source: "exec"},
		{Source: "x", Params: map[string]Text{"a": "10ms", "b": "0x10", "c": "1,d"}}}})
	f("name: &n x\nlist: [*n, *n]", config{Name: "x", List: []string{"x", "x"}})
	f("text: 1.50", config{Text: "1.50"})
	f("colour: red", config{Colour: "red"})
}

func TestUnmarshalProblems(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		var got config
		err := Unmarshal([]byte(text), "f", &got)
		problems := program.Problems(err)
		if len(problems) != len(want) {
			t.Errorf("%.100q: %d problems, want %d:\n%v", text, len(problems), len(want), err)
			return
		}
		for i := range want {
			if !strings.Contains(problems[i].Error(), want[i]) {
				t.Errorf("%.100q:\ngot  %v\nwant %s", text, problems[i], want[i])
			}
		}
	}
	f("nam: x\nColour: red\nzzzzzzzzzz: 1", `f:1: nam: unknown field: did you mean "name"?`, `f:2: Colour: unknown field: did you mean "colour"?`,
		"f:3: zzzzzzzzzz: unknown field: the fields here are series, name")
	f("name: 1\nnumber: 128\ncount: -1\nratio: x\non: 1", `f:1: name: want text, not the number 1`, "f:2: number: want a whole number, not the number 128",
		"f:3: count: want a whole number that is not negative", "f:4: ratio: want a number, not the text", "f:5: on: want true or false")
	f("number: 1.5", "want a whole number, not the number 1.5")
	f("ratio: .nan", "want a number")
	f("ratio: 3", "f:1: ratio: 3 is too large: the most is 2")
	f("series: 0", "0 is too small: the least is 1")
	f("nested: {series: -1}", "f:1: nested.series: -1 is too small")
	f("wait: 5\ntimeout: soon", "want a duration such as 10s, not the number 5", `f:2: timeout: want a duration such as 10s, not "soon"`)
	f("list: a", `want a list, not the text "a"`)
	f("list: [a, b, c, d]", "it has 4 entries, at most 3 are allowed")
	f("list:\n- a\n- [b]\n", "f:3: list[1]: want text, not a list")
	f("map: [a]", "want a mapping, not a list")
	f("map: {a.b: x}", `f:1: map["a.b"]: want a whole number`)
	f("map: {a: 1, a: 2}", "f:1: map.a: it is already set in line 1")
	f("map: {[a]: 1}", "a key must be a name")
	f("map: {a: }", "f:1: map.a: it has no value")
	f("name:", "f:1: name: it has no value")
	f("colour: blue", `f:1: colour: "blue" is not known here: it is one of red, green`)
	f("entries:\n- params: {}\n", "f:2: entries[0].source: it is missing")
	f("entries:\n- source: x\n  sauce: y\n", `f:3: entries[0].sauce: unknown field: did you mean "source"?`)
	f("entries:\n- [x]\n", "f:2: entries[0]: want a mapping, not a list")
	f("base: &b {name: x}\n<<: *b", "f:1: base: unknown field", "merge keys (<<) are not supported")
	f("name: x\n---\nname: y", "f:3: a second document begins here")
	f("- a", "f:1: want a mapping, not a list")
	f("a: b: c", "f:1: not valid YAML: mapping values are not allowed")
	f("name: 'a", "f:1: not valid YAML")
	f("number: 1\nname: *x", "f:2: not valid YAML: unknown anchor 'x' referenced")
	f("name: !!binary aGk=", "want text")
	f(strings.Repeat("a", MaxSize+1), "file is too large")
	f("map: {"+strings.Repeat("k", 400)+": 1}", "a key of 400 bytes: at most 320 are allowed")
	f("any: "+strings.Repeat("[", 100)+strings.Repeat("]", 100), "too many or too deeply nested")
	// A hundred problems are enough for one time.
	f("list: ["+strings.Repeat("1,", 1000)+"]", append(make([]string, 100), "more problems follow")...)
}

// Nine levels of nine aliases stand for 400 million values.
func TestAliasBomb(t *testing.T) {
	var text strings.Builder
	text.WriteString("any:\n- &a0 [x]\n")
	for i := range 9 {
		text.WriteString("- &a" + string(rune('1'+i)) + " [")
		for range 9 {
			text.WriteString("*a" + string(rune('0'+i)) + ", ")
		}
		text.WriteString("]\n")
	}
	for _, field := range []string{"any", "list", "entries"} {
		var got config
		err := Unmarshal([]byte(strings.Replace(text.String(), "any", field, 1)), "f", &got)
		if err == nil || len(program.Problems(err)) > maxProblems+1 {
			t.Errorf("%s: error %.200v", field, err)
		}
	}
	var got config
	if err := Unmarshal([]byte("any: &a [*a]"), "f", &got); err == nil {
		t.Error("an alias that contains itself: no error")
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kaon.yaml")
	if err := os.WriteFile(path, []byte("name: x"), 0o644); err != nil {
		t.Fatal(err)
	}
	var got config
	if err := ReadFile(path, &got); err != nil || got.Name != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := ReadFile(filepath.Join(dir, "none"), &got); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := ReadFile("/dev/zero", &got); err == nil {
		t.Error("a device: no error")
	}
	if err := Unmarshal([]byte("name: x"), "f", got); err == nil {
		t.Error("no pointer: no error")
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"name: x\nlist: [a, b]\nany: {a: [1, 2]}", "entries:\n- exec\n- source: x\n  params: {a: 10ms}\n",
		"any: &a [1]\nlist: *a", "any: &a [*a]", "a: !!int 5\n---\nb: |\n  text\n", "? [a]\n: b", "wait: 10s", "{\"name\": \"x\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		err := Unmarshal(data, "f", &c)
		for _, p := range program.Problems(err) {
			if p.Error() == "" {
				t.Error("an empty message")
			}
		}
	})
}

// What is no file is refused, and not waited for.
func TestReadNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, "/dev/null"} {
		if _, err := readFile(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
