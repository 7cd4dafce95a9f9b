package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

func TestMissingKfunc(t *testing.T) {
	f := func(err error, want string) {
		t.Helper()
		if got := missingKfunc(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	f(errors.Join(errors.New(`fixing up kfuncs: kfunc "bpf_new"`), ebpf.ErrNotSupported), "bpf_new")
	f(errors.New(`kfunc "bpf_new"`), "")
	f(ebpf.ErrNotSupported, "")
	f(btf.ErrNotFound, "")
}

// A function that this kernel lacks is named; the hook is not to blame.
func TestLoadWithoutKfunc(t *testing.T) {
	e := newEngine(t, Options{})
	spec := loadSpec(t, "kfunc.bpf.o")
	i, err := e.Load(context.Background(), spec)
	if err == nil {
		_ = i.Close()
		t.Fatal("a function that calls what does not exist was loaded")
	}
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "kaon_no_such_kfunc") || spec.Hooks[0].Kind != program.Iterator {
		t.Error(err)
	}
}
