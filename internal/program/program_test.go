package program

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestProblems(t *testing.T) {
	one, two, three := errors.New("one"), &Problem{Where: "x.yaml:3", What: "two", Fix: "do three"}, errors.New("three")
	f := func(err error, want ...string) {
		t.Helper()
		var got []string
		for _, e := range Problems(err) {
			got = append(got, e.Error())
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(nil)
	f(one, "one")
	f(errors.Join(one, two), "one", "x.yaml:3: two: do three")
	f(errors.Join(one, nil, errors.Join(two, three)), "one", "x.yaml:3: two: do three", "three")
	// What is said around errors must not get lost.
	f(fmt.Errorf("load a: %w", errors.Join(one, three)), "load a: one\nthree")
	f(fmt.Errorf("load a: %w: %w", one, three), "load a: one: three")
	f(errors.Join(fmt.Errorf("%w: %w", one, three), two), "one: three", "x.yaml:3: two: do three")
}

func TestNearest(t *testing.T) {
	names := []string{"exec", "syscalls", "runqueue", "blockio"}
	f := func(name, want string) {
		t.Helper()
		if got := Nearest(name, names); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	f("exex", "exec")
	f("syscall", "syscalls")
	f("run-queue", "runqueue")
	f("kubernetes", "")
	f("", "")
}

func TestEncodeParamOfEachType(t *testing.T) {
	f := func(p Param, text, want string) {
		t.Helper()
		p.Variable = "v"
		got, err := p.Encode(text)
		if want == "" {
			if !errors.Is(err, ErrParamValue) {
				t.Errorf("%s %q: got %x and the error %v, want ErrParamValue", p.Type, text, got, err)
			}
			return
		}
		if err != nil || fmt.Sprintf("%x", got) != want {
			t.Errorf("%s %q: got %x, %v, want %s", p.Type, text, got, err, want)
		}
	}
	f(Param{Type: ParamBool, Size: 1}, "true", "01")
	f(Param{Type: ParamBool, Size: 1}, "off", "00")
	f(Param{Type: ParamBool, Size: 4}, "yes", "01000000")
	f(Param{Type: ParamBool, Size: 1}, "maybe", "")
	f(Param{Type: ParamUint, Size: 2}, "65535", "ffff")
	f(Param{Type: ParamUint, Size: 2}, "65536", "")
	f(Param{Type: ParamUint, Size: 2}, "-1", "")
	f(Param{Type: ParamUint, Size: 8}, "18446744073709551615", "ffffffffffffffff")
	f(Param{Type: ParamUint, Size: 8}, "18446744073709551616", "")
	f(Param{Type: ParamUint, Size: 4}, "0x10", "10000000")
	f(Param{Type: ParamInt, Size: 1}, "-128", "80")
	f(Param{Type: ParamInt, Size: 1}, "128", "")
	f(Param{Type: ParamInt, Size: 8}, "-9223372036854775808", "0000000000000080")
	f(Param{Type: ParamInt, Size: 4}, "", "")
	f(Param{Type: ParamInt, Size: 4}, "1.5", "")
	f(Param{Type: ParamDuration, Size: 8}, "10ms", "8096980000000000")
	f(Param{Type: ParamDuration, Size: 8}, "0", "0000000000000000")
	f(Param{Type: ParamDuration, Size: 8}, "-1s", "")
	f(Param{Type: ParamDuration, Size: 4}, "10s", "") // 10^10 does not fit
	f(Param{Type: ParamSize, Size: 4}, "64KiB", "00000100")
	f(Param{Type: ParamSize, Size: 4}, "1MB", "40420f00")
	f(Param{Type: ParamSize, Size: 4}, "1KKB", "")
	f(Param{Type: ParamSize, Size: 4}, "5TiB", "")
	f(Param{Type: ParamEnum, Size: 4, Enum: map[string]int64{"read": 1, "none": -1}}, "none", "ffffffff")
	f(Param{Type: ParamEnum, Size: 4, Enum: map[string]int64{"read": 1}}, "write", "")
	f(Param{Type: ParamString, Size: 4}, "abc", "61626300")
	f(Param{Type: ParamString, Size: 4}, "abcd", "")
	f(Param{Type: "colour", Size: 4}, "red", "")
}

func aimed() *Spec {
	hooks := []Hook{{Function: "a", Kind: XDP}, {Function: "b", Kind: Cgroup}, {Function: "c", Kind: Uprobe}}
	return &Spec{Name: "aimed", Hooks: hooks, Params: append(AimParams(hooks), Param{Name: "number", Variable: "number", Type: ParamUint, Size: 4, Default: "7"},
		Param{Name: "slow", Variable: "slow", Type: ParamBool, Size: 1, Default: "false"})}
}

func TestSetParam(t *testing.T) {
	s := aimed()
	for name, text := range map[string]string{"interfaces": "eth*, lo,", "cgroups": "a,b", "pid": "12", "number": "9"} {
		if err := s.SetParam(name, text); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.Hooks {
		if !slices.Equal(h.Interfaces, []string{"eth*", "lo"}) || !slices.Equal(h.Cgroups, []string{"a", "b"}) || h.PID != 12 {
			t.Errorf("%s is aimed at %q, %q, %d", h.Function, h.Interfaces, h.Cgroups, h.PID)
		}
	}
	if i := slices.IndexFunc(s.Params, func(p Param) bool { return p.Name == "number" }); s.Params[i].Text() != "9" {
		t.Errorf("number is %s", s.Params[i].Text())
	}
	if err := s.SetParam("nubmer", "1"); !errors.Is(err, ErrNoParam) || !strings.Contains(err.Error(), "number") {
		t.Errorf("an unknown param: %v", err)
	}
	if err := s.SetParam("number", "many"); !errors.Is(err, ErrParamValue) {
		t.Errorf("a wrong value: %v", err)
	}
	if err := (&Spec{Name: "bare"}).SetParam("x", "1"); !errors.Is(err, ErrNoParam) {
		t.Errorf("a spec without params: %v", err)
	}
}

func TestFrequency(t *testing.T) {
	f := func(target, set, want string) {
		t.Helper()
		hooks := []Hook{{Function: "a", Kind: PerfEvent, Target: target}, {Function: "b", Kind: Tracepoint, Target: "frequency=1"}}
		s := &Spec{Name: "sampled", Hooks: hooks, Params: AimParams(hooks)}
		if err := s.SetParam(ParamFrequency, set); (err == nil) != (want != "") {
			t.Errorf("%s: %v", target, err)
		}
		if want != "" && s.Hooks[0].Target != want || s.Hooks[1].Target != "frequency=1" {
			t.Errorf("%s set to %s is %+v", target, set, s.Hooks)
		}
	}
	f("type=software,config=cpu_clock,frequency=99", "499", "type=software,config=cpu_clock,frequency=499")
	f("frequency=99,config=cpu_clock", "7", "frequency=7,config=cpu_clock")
	f("frequency=99,config=cpu_clock", "often", "")
	f("config=cpu_clock,period=1000", "99", "") // counts events
	if p := AimParams([]Hook{{Kind: PerfEvent, Target: "config=1,frequency=49"}}); len(p) != 2 || p[1].Text() != "49" {
		t.Errorf("%+v", p)
	}
}

func TestEnabled(t *testing.T) {
	s := aimed()
	f := func(when, unless string, want bool) {
		t.Helper()
		if got := s.Enabled(when, unless); got != want {
			t.Errorf("when %q unless %q: got %v", when, unless, got)
		}
	}
	f("", "", true)
	f("number", "", true) // by default 7
	f("slow", "", false)
	f("", "slow", true)
	f("", "number", false)
	f("number", "slow", true)
	f("absent", "", false)
	if err := s.SetParam("slow", "on"); err != nil {
		t.Fatal(err)
	}
	f("slow", "", true)
	f("number", "slow", false)
}

func TestCompatible(t *testing.T) {
	labelled := func(m Metric, name, value string) Metric {
		m.StaticLabels = []StaticLabel{{name, value}}
		return m
	}
	counter := Metric{Name: "a_total", Type: Counter}
	histogram := Metric{Name: "a", Type: Histogram}
	f := func(a, b Metric, fits bool) {
		t.Helper()
		if err := Compatible(&a, &b); (err == nil) != fits {
			t.Errorf("%s %s and %s %s: %v", a.Type, a.Name, b.Type, b.Name, err)
		}
		if err := Compatible(&b, &a); (err == nil) != fits {
			t.Errorf("not symmetric: %v", err)
		}
	}
	f(counter, Metric{Name: "b_total", Type: Counter}, true)
	f(counter, counter, false)
	f(labelled(counter, "by", "x"), labelled(counter, "by", "y"), true)
	f(labelled(counter, "by", "x"), labelled(counter, "by", "x"), false)
	f(labelled(counter, "by", "x"), labelled(counter, "of", "y"), false)
	f(labelled(counter, "by", "x"), labelled(Metric{Name: "a_total", Type: Gauge}, "by", "y"), false)
	f(labelled(counter, "by", "x"), labelled(Metric{Name: "a_total", Type: Counter, Unit: "bytes"}, "by", "y"), false)
	// In an exposition the family a_total is called a, and a histogram has samples of several names.
	f(counter, Metric{Name: "a", Type: Gauge}, false)
	f(histogram, Metric{Name: "a_count", Type: Gauge}, false)
	f(histogram, Metric{Name: "a_bucket", Type: Gauge}, false)
	f(histogram, Metric{Name: "a_max", Type: Gauge}, true)
	f(Metric{Name: "b_info", Type: Info}, Metric{Name: "b", Type: Gauge}, false)
}

// Clones can be changed without changing what they were made of.
func TestClone(t *testing.T) {
	s := aimed()
	s.Readers = []Reader{{Name: "r", Key: []Label{{Name: "a"}}, Metrics: []Metric{{Name: "m", Labels: []Label{{Name: "a"}}, Buckets: &Buckets{Schema: 2}}}}}
	c := s.Clone()
	if err := c.SetParam("pid", "5"); err != nil {
		t.Fatal(err)
	}
	m := &c.Readers[0].Metrics[0]
	m.Name, m.Labels[0].Name, m.Buckets.Schema = "n", "b", 1
	c.Readers[0].Key[0].Name = "b"
	if old := s.Readers[0].Metrics[0]; old.Name != "m" || old.Labels[0].Name != "a" || old.Buckets.Schema != 2 || s.Readers[0].Key[0].Name != "a" || s.Hooks[2].PID != 0 {
		t.Errorf("the original changed: %+v, %+v", old, s.Hooks)
	}
}

// Text from a user never panics, and what was accepted stands in the param and has the variable's size.
func FuzzSetParam(f *testing.F) {
	for _, text := range []string{"", "1", "-1", "0x7f", "1e3", "10ms", "-5h", "64KiB", "999999999999999999999", "eth*,lo", "read", "true", "\xff\x00"} {
		f.Add(text)
	}
	types := []ParamType{ParamBool, ParamInt, ParamUint, ParamEnum, ParamString, ParamDuration, ParamSize, ParamList}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range types {
			for _, size := range []uint32{0, 1, 2, 4, 8, 16} {
				s := aimed()
				s.Params = append(s.Params, Param{Name: "x", Variable: "x", Type: kind, Size: size, Enum: map[string]int64{"read": 1, "huge": 1 << 40}})
				if s.SetParam("x", text) != nil {
					continue
				}
				p := &s.Params[len(s.Params)-1]
				encoded, err := p.Encode(text)
				if err != nil || p.Value != text {
					t.Fatalf("%s %q: accepted, but %v, value %q", kind, text, err, p.Value)
				}
				if want := int(size); kind != ParamList && kind != ParamString && size > 0 && size <= 8 && len(encoded) != want {
					t.Fatalf("%s %q: %d bytes for a variable of %d", kind, text, len(encoded), want)
				}
			}
		}
		for _, name := range []string{"interfaces", "cgroups", "pid"} {
			_ = aimed().SetParam(name, text)
		}
	})
}

func TestExcludes(t *testing.T) {
	f := func(a, b Metric, want bool) {
		t.Helper()
		if a.Excludes(&b) != want || b.Excludes(&a) != want {
			t.Errorf("%+v, %+v: want %v", a, b, want)
		}
	}
	f(Metric{}, Metric{}, false)
	f(Metric{When: "a"}, Metric{}, false)
	f(Metric{When: "a"}, Metric{When: "a"}, false)
	f(Metric{When: "a"}, Metric{When: "b"}, false)
	f(Metric{When: "a"}, Metric{Unless: "a"}, true)
	f(Metric{When: "a"}, Metric{Unless: "b"}, false)
	f(Metric{When: "a", Unless: "b"}, Metric{When: "b"}, true)
}
