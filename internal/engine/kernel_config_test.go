package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/features"

	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// parseSpec reads a test object as Kaon does.
func parseSpec(t testing.TB, name string) *program.Spec {
	t.Helper()
	path := filepath.Join("testdata", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := object.ParseCode(data, path)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Collection.Variables["test_tgid"] != nil {
		setVariable(t, spec, "test_tgid", uint32(os.Getpid()))
	}
	return spec
}

const testConfig = `#
# CONFIG_KAON_LACKING is not set
CONFIG_KAON_NUMBER=-250
CONFIG_KAON_ADDRESS=0xffffffff81000000
CONFIG_KAON_YES=y
CONFIG_KAON_MODULE=m
CONFIG_KAON_LETTER=n
CONFIG_KAON_TEXT="(none)"
CONFIG_KAON_NUMBER=1
CONFIG_KAON_TOO_LARGE=2
`

func TestKernelConfig(t *testing.T) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(testConfig)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"plain": []byte(testConfig), "gzip": packed.Bytes()} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{})
			path := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			e.configFiles = []string{path + ".not", path}
			i := mustLoad(t, e, parseSpec(t, "config.bpf.o"))
			mustFail(t, hookOf(t, i, "absent").Err, ErrUnsupported, "without CONFIG_KAON_ABSENT", "__weak")
			mustFail(t, hookOf(t, i, "too_large").Err, nil, "CONFIG_KAON_TOO_LARGE is 2")
			call(1)
			number := int64(-250)
			want := []uint64{
				uint64(version), 1, 1, uint64(number), 0xffffffff81000000, 1, 2, 'n', '(', 'n', 1, 77,
			}
			for n, w := range want {
				var got uint64
				if err := i.Map("values").Lookup(uint32(n), &got); err != nil || got != w {
					t.Errorf("value %d = %#x, %v, want %#x", n, got, err, w)
				}
			}
		})
	}
}

// Without the kernel's configuration nobody knows what it lacks; what it can do is known.
func TestNoKernelConfig(t *testing.T) {
	e := newEngine(t, Options{})
	path := filepath.Join(t.TempDir(), "config")
	e.configFiles = []string{path}
	i := mustLoad(t, e, parseSpec(t, "config.bpf.o"))
	mustFail(t, hookOf(t, i, "options").Err, ErrUnsupported, path, "/boot")
	if h := hookOf(t, i, "abilities"); h.Err != nil {
		t.Error(h.Err)
	}
	if err := os.WriteFile(path, []byte("\x1f\x8bno"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := e.Load(context.Background(), parseSpec(t, "config.bpf.o"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustFail(t, hookOf(t, other, "options").Err, nil, path)
}

func FuzzKernelConfig(f *testing.F) {
	f.Add(testConfig)
	f.Add("\x1f\x8b")
	f.Fuzz(func(t *testing.T, text string) {
		options := map[string]string{"CONFIG_KAON_NUMBER": ""}
		_ = parseKernelConfig(strings.NewReader(text), options)
		if len(options) != 1 {
			t.Errorf("options that nobody wants: %v", options)
		}
	})
}
