package series

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

type directories map[workload.ID]string

func (d directories) DirectoryOf(id workload.ID) string { return d[id] }

func chainEnvironment(t testing.TB) environment {
	t.Helper()
	env := testEnvironment()
	env.cgroups = directories{42: "/sys/fs/cgroup/a.slice"}
	path := filepath.Join(t.TempDir(), "pci.ids")
	text := "# comment\n0014  Loongson\n10de  NVIDIA Corporation\n\t2704  AD103\n\t\t1043 88e2  Board\n" +
		"C 01  Mass storage controller\n\t08  Non-Volatile memory controller\n\t\t02  NVM Express\nC 02  Network controller\n\t00  Ethernet controller\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env.host.pci = &pciNames{paths: []string{path + ".none", path}}
	return env
}

func TestSteps(t *testing.T) {
	env := chainEnvironment(t)
	f := func(in, want string, wantResult result, steps ...program.Step) {
		t.Helper()
		c, err := newChain(&program.Label{Name: "x", Steps: steps}, env)
		if err != nil {
			t.Fatal(err)
		}
		got, r := c.value([]byte(in))
		if string(got) != want || r != wantResult {
			t.Errorf("%q %v: got %q %v, want %q %v", in, steps, got, r, want, wantResult)
		}
	}
	one := func(name string) program.Step { return program.Step{Name: name} }
	number := one("uint")
	f("\x05", "5", 0, number)
	f("\x05\x00\x00\x00\x00\x00\x00\x80", "9223372036854775813", 0, number)
	f("abc", "abc", 0, number) // no number
	f("\x2a\x00", "/sys/fs/cgroup/a.slice", 0, number, one("cgroup"))
	f("\x2b\x00", "unknown_cgroup_id:43", unnamed, number, one("cgroup"))
	f("x", "x", 0, one("cgroup"))
	f("\x2b\x00", "", unnamed|skipped, number, one("cgroup"), program.Step{Name: "regexp", Regexps: []string{"^/sys"}})
	f("\x02\x00\x00\x00", "eth0", 0, one("ifname"))
	f("\x09\x00\x00\x00", "unknown:9", unnamed, one("ifname"))
	f("\x09", "\x09", 0, one("ifname"))
	f("\x00\x02\x00\x81\xff\xff\xff\xff", "vfs_read", 0, program.Step{Name: "hex"}, program.Step{Name: "static_map", Map: map[string]string{"00020081ffffffff": "vfs_read"}})
	f("\x00\x02\x00\x81\xff\xff\xff\xff", "vfs_read", 0, one("ksym"))
	f("\x00\x00\x00\xc0\xff\xff\xff\xff", "hook\t[module]", 0, one("ksym"))
	f("\x80\x01\x00\x81\xff\xff\xff\xff", "data", 0, one("ksym"))
	f("\x00\x03\x00\x81\xff\xff\xff\xff", "unknown_addr:0xffffffff81000300", unnamed, one("ksym"))
	f("\x01\x02\x00\x81\xff\xff\xff\xff", "unknown_addr:0xffffffff81000201", unnamed, one("ksym"))
	f("\x10\x02\x00\x81\xff\xff\xff\xff"+"\x50\x01\x00\x81\xff\xff\xff\xff"+strings.Repeat("\x00", 8)+"\x00\x02\x00\x81\xff\xff\xff\xff", "vfs_read\ndo_it", 0, one("kstack"))
	f("\x01\x00\x00\x00\x00\x00\x00\x00", "??", unnamed, one("kstack"))
	f(strings.Repeat("\x00", 16), "", 0, one("kstack"))
	f("\xde\x10", "NVIDIA Corporation", 0, number, one("pci_vendor"))
	f("\x14\x00", "Loongson", 0, number, one("pci_vendor"))
	f("\x05\x00", "unknown pci vendor: 0x05", 0, number, one("pci_vendor"))
	f("\x04\x27\xde\x10", "AD103", 0, number, one("pci_device"))
	f("\xef\xbe\xad\xde", "unknown pci device: 0xdeadbeef", 0, number, one("pci_device"))
	f("\x01", "Mass storage controller", 0, number, one("pci_class"))
	f("\xfd", "unknown pci class: 0xfd", 0, number, one("pci_class"))
	f("\x08\x01", "Non-Volatile memory controller", 0, number, one("pci_subclass"))
	f("\x0b\x01", "unknown pci subclass: 0x0b (class 0x01)", 0, number, one("pci_subclass"))
	f("\x00\xfd", "unknown pci class: 0xfd", 0, number, one("pci_subclass"))
	f("\x7f\x00\x00\x01", "127.0.0.1", 0, one("inet_ip"))
	f("abc", "?616263", 0, one("inet_ip"))
	f("\x03com", "com", 0, one("dname"))
	f("\x05com", "\x05com", 0, one("dname"))
	f("", ".", 0, one("dname"))
	f("a", "empty mapping", 0, one("static_map"))
	f("abc12", "12", 0, program.Step{Name: "regexp", Regexps: []string{"x", "^abc(.*)$"}})
	f("abc12", "bc", 0, program.Step{Name: "regexp", Regexps: []string{"bc"}})
	f("abc12", "abc12", 0, program.Step{Name: "regexp", Regexps: []string{"^(a)(b)c12"}})

	env.host.pci = &pciNames{}
	f("\x01", "missing pci.ids db", 0, number, one("pci_class"))
	if _, err := newChain(&program.Label{Steps: []program.Step{one("none")}}, env); err == nil {
		t.Error("a step that does not exist was taken")
	}
}

// Stacks are longer than names, but bounded all the same.
func TestChainLabels(t *testing.T) {
	env := chainEnvironment(t)
	l := &program.Label{Name: "x", Field: program.Field{Size: 20000}, Steps: []program.Step{{Name: "hex"}}}
	c, err := newChain(l, env)
	if err != nil {
		t.Fatal(err)
	}
	text, known, skip := c.append([]byte(`a="b"`), l, make([]byte, 20000))
	if len(text) != len(`a="b",x=""`)+MaxChainValue || !known || skip {
		t.Errorf("%d bytes, known %v, skip %v", len(text), known, skip)
	}
	if text, _, _ := c.append([]byte("same"), l, make([]byte, 5)); string(text) != "same" {
		t.Errorf("a key that is too short: %q", text)
	}
}

func FuzzSteps(f *testing.F) {
	f.Add([]byte("\x07example\x03com"), "uint", "static_map", "^a(b)$")
	f.Add([]byte("\x00\x02\x00\x81\xff\xff\xff\xff"), "kstack", "regexp", ".*")
	names := Steps()
	env := chainEnvironment(f)
	f.Fuzz(func(t *testing.T, data []byte, first, second, pattern string) {
		pick := func(name string) string { return names[len(name)%len(names)] }
		l := &program.Label{Name: "x", Field: program.Field{Size: uint32(len(data))}, Steps: []program.Step{
			{Name: pick(first), Regexps: []string{pattern}, Map: map[string]string{"1": pattern}},
			{Name: pick(second), Regexps: []string{pattern}, AllowUnknown: true},
		}}
		c, err := newChain(l, env)
		if err != nil {
			return
		}
		text, _, skip := c.append(nil, l, data)
		if skip {
			return
		}
		n := 0
		EachLabel(string(text), func(name, value string) bool {
			n++
			if again := string(appendEscapedUpTo(nil, value, 1<<20)); name != "x" || `x="`+again+`"` != string(text) || !utf8.ValidString(value) {
				t.Fatalf("%q is read as %s=%q", text, name, value)
			}
			return true
		})
		if n != 1 {
			t.Fatalf("%q has %d labels", text, n)
		}
	})
}
