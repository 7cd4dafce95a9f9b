package lab

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func load(t testing.TB, source string) (*Program, error) {
	t.Helper()
	return LoadProgram("kick.star", []byte(source), time.Unix(1700000000, 0))
}

func mustLoad(t testing.TB, source string) *Program {
	t.Helper()
	p, err := load(t, source)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProgram(t *testing.T) {
	for source, want := range map[string]float64{
		DefaultProgram:    27,
		"KICK_POWER = 40": 40,
		"KICK_POWER = 40\ndef kick(turn, beam): pass":                                                           40,
		"KICK_POWER = 40\ndef kick(turn, beam): return turn + 0.5":                                              7.5,
		"KICK_POWER = 40\ndef kick(turn, beam): return 45 if beam.ratio > 0.5 else 30":                          45,
		"KICK_POWER = 1\nfor i in range(3):\n  KICK_POWER += i * 2":                                             7,
		"KICK_POWER = 3\nl = [1, 2]\nl += [3]\nd = {'a': [1]}\nd['a'][0] += 4\nKICK_POWER = d['a'][0] + len(l)": 8,
		"a, b = 1, 2\na, b = b, a\nKICK_POWER = a":                                                              2,
		"KICK_POWER = len([x for x in range(9) if x % 2 == 0 and x not in (0, 4)])":                             3,
		"def f(x, y=2): return x * y\nKICK_POWER = f(4, y=3)":                                                   12,
		"KICK_POWER = len('a,b'.split(',')[0:1] + sorted([3, 1], key=lambda x: -x))":                            3,
		"i = 0\nwhile i < 5:\n  i += 1\nKICK_POWER = max([i, 2]) // 2":                                          2,
	} {
		p, err := load(t, source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := p.Kick(7, Beam{Ratio: 0.9}); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", source, got, err, want)
		}
	}
}

// Errors say where, in the program's own lines.
func TestProgramErrors(t *testing.T) {
	for _, c := range []struct{ source, want string }{
		{"KICK_POWER = ", "kick.star:1:14: got end of file"},
		{"KICK_POWER = 2\nx = y", "kick.star:2:5: undefined: y"},
		{"KICK_POWER = 2\nx = 1 + 'a'", "kick.star:2:7: unknown binary op"},
		{"KICK_POWER = 2\nx = [1][5]", "kick.star:2:8: list index 5 out of range"},
		{"KICK_POWER = 2\nx = len(1)", "kick.star:2:8: "},
		{"x = 1", "KICK_POWER is missing"},
		{"KICK_POWER = 101", "must be from 0 to 100"},
		{"KICK_POWER = True", "is a bool"},
		{"KICK_POWER = 'a'", "is a string"},
		{"KICK_POWER = 1\nkick = 2", "must be a function"},
		{"KICK_POWER = 1\ndef kick(turn): pass", "kick.star:2:1: kick has two parameters"},
		{"load('x.star', 'y')", "kick.star:1:1: load is not available"},
		{"def f(*a): pass", "kick.star:1:7: parameters with *"},
		{"open('/etc/passwd')", "kick.star:1:1: undefined: open"},
		{"import os", "kick.star:1:1: "},
		{strings.Repeat("#", MaxSource+1), "at most 65536"},
		{"KICK_POWER = 1\nc = gauge('a')\nc.inc(x=1)", "kick.star:3:6: inc: a has no label x"},
	} {
		_, err := load(t, c.source)
		if failed, ok := errors.AsType[*ProgramError](err); !ok || !strings.Contains(failed.Error(), c.want) {
			t.Errorf("%.60q: %v, want %q", c.source, err, c.want)
		}
	}
}

func TestKickErrors(t *testing.T) {
	for body, want := range map[string]string{
		"return 'a'":               "kick.star:2:1: what kick returned is a string",
		"return 1000":              "must be from 0 to 100",
		"return float('nan')":      "not finite",
		"x = counter('late')":      "kick.star:3:14: counter: metrics are defined at the top",
		"return 1 / (turn - turn)": "kick.star:3:12: floating-point division by zero",
	} {
		p := mustLoad(t, "KICK_POWER = 1\ndef kick(turn, beam):\n  "+body)
		if power, err := p.Kick(1, Beam{}); err == nil || !strings.Contains(err.Error(), want) || power != 1 {
			t.Errorf("%s: %v, %v, want %q", body, power, err, want)
		}
	}
}

// Programs that loop, recurse, allocate or print without end are stopped, at once, and told so.
func TestProgramBounds(t *testing.T) {
	const large, much, steps = "too large", "too much data", "does not end"
	for _, c := range []struct{ source, want string }{
		{"while True: pass", steps},
		{"for i in range(9999):\n  for j in range(9999): pass", steps},
		{"def f(): return f()\nf()", "called recursively"},
		{"x = 'a' * 1000000000", large},
		{"x = [0] * (1 << 40)", large},
		{"x = 9999999 * [0]", large},
		{"x = 'ab'\nfor i in range(99): x += x", large},
		{"x = [1]\nfor i in range(99): x += x", large},
		{"x = [1]\nfor i in range(99): x = x + x", large},
		{"x = [1]\nfor i in range(99): x.extend(x)", large},
		{"x = [1]\nfor i in range(99): x *= 2", large},
		{"x = 3\nfor i in range(99): x = x * x", "number is too large"},
		{"x = 3\nfor i in range(99): x *= x", ""},
		{"x = []\nfor i in range(9999): x.append('a' * 9999)", much},
		{"x = []\nfor i in range(9999): x.append(list(range(999)))", much},
		{"y = [0] * 999\nx = []\nfor i in range(9999): x.append(y[:])", much},
		{"x = list(range(1000000000))", "range: at most"},
		{"x = any(range(1 << 60))", "range: at most"},
		{"x = ()\nfor i in range(99): x = (x, x)\nd = {x: 1}", large},
		{"x = ()\nfor i in range(99): x = [e for e in zip([x], [x])][0]", large},
		{"x = []\nfor i in range(99): x = [x, x]\ny = str(x)", large},
		{"x = []\nfor i in range(30): x = [x, x]\ny = x == x", large},
		{"x = []\nfor i in range(30): x = [x, x]\ny = '%s' % [x]", large},
		{"x = []\nx.append(x)\nprint(x)", large},
		{"x = 'a' * 9999\ny = ('%s' * 99) % tuple([x] * 99)", large},
		{"x = ('{0}' * 99).format('a' * 9999)", large},
		{"x = ('a' * 9999).replace('a', 'b' * 99)", large},
		{"x = ('a' * 9999).join(['b'] * 99)", large},
		{"f = getattr('a' * 9999, 'join')\nx = f(['b'] * 99)", large},
		{"x = max(['a'] * 9, key=('a' * 999).join)", "must be a function of the program"},
		{"while True: print('a' * 99)", "print: more than"},
		{"for i in range(99): counter('c%d' % i)", "at most 50 metrics"},
		{"c = counter('c', labels=['i'])\nfor i in range(999): c.inc(i=i)", "more than 100 series"},
		{strings.Repeat("(", 5000), "nesting"},
	} {
		start := time.Now()
		_, err := load(t, "KICK_POWER = 1\n"+c.source)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.70q: %v, want %q", c.source, err, c.want)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%.70q: stopped after %v", c.source, took)
		}
	}
}

// What a program keeps can't grow from kick to kick.
func TestProgramIsFrozen(t *testing.T) {
	p := mustLoad(t, "KICK_POWER = 1\nkept = []\ndef kick(turn, beam):\n  kept.append(turn)")
	if _, err := p.Kick(1, Beam{}); err == nil || !strings.Contains(err.Error(), "frozen") {
		t.Error(err)
	}
}

func FuzzProgram(f *testing.F) {
	f.Add(DefaultProgram)
	f.Add("KICK_POWER = 1\nc = counter('c', labels=['a'])\ndef kick(turn, beam):\n  c.inc(a='x')\n  return turn % 50")
	f.Add("KICK_POWER = 1\nh = histogram('h', buckets=[1, 2.5])\nh.observe(-1)\ns = stateset('s', ['a'])\ns.set('a')")
	f.Add("KICK_POWER = 1\ng = gauge('g', fn=lambda: 3)\ni = info('i', labels=['v'])\ni.set(v='\"\\n')")
	f.Add("x = [(1, 2)[0:1], {1: 2}]\nx[0] += (3,)\nKICK_POWER = -x[1][1] if 1 not in x else 2")
	f.Fuzz(func(t *testing.T, source string) {
		p, err := load(t, source)
		if err != nil {
			if _, ok := errors.AsType[*ProgramError](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if power, _ := p.Kick(1, Beam{}); !(power >= 0 && power <= maxPower) {
			t.Fatal(power)
		}
		families, _ := p.Families()
		expose(t, families)
	})
}
