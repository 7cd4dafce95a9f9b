package engine

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

func TestFindSymbols(t *testing.T) {
	text := "0000000000000000 A hidden\nffffffff81000000 T _text\nbad\nffffffff81000010 t twice\nffffffff81000020 t twice\nffffffffc0000000 d data\t[module]\nzz T odd\n"
	symbols := []program.Symbol{{Name: "twice"}, {Name: "data"}, {Name: "hidden"}, {Name: "none"}, {Name: "odd"}}
	got, err := findSymbols(strings.NewReader(text), symbols)
	want := map[string]uint64{"twice": 0xffffffff81000010, "data": 0xffffffffc0000000, "hidden": 0}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v %v, want %v", got, err, want)
	}
}

func TestMissingSymbol(t *testing.T) {
	coll := &ebpf.CollectionSpec{}
	if err := setSymbols(coll, nil); err != nil {
		t.Error(err)
	}
	err := setSymbols(coll, []program.Symbol{{Name: "no_such_symbol_here", Variable: "kaddr_no_such_symbol_here"}})
	if !errors.Is(err, ErrNoSymbol) || !strings.Contains(err.Error(), "CONFIG_KALLSYMS_ALL") {
		t.Errorf("got %v", err)
	}
}
