package program

import (
	"reflect"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestEnumStates(t *testing.T) {
	f := func(enum btf.Enum, want ...State) {
		t.Helper()
		if got := EnumStates(&enum); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", enum.Name, got, want)
		}
	}
	values := func(names ...string) []btf.EnumValue {
		var list []btf.EnumValue
		for i, name := range names {
			list = append(list, btf.EnumValue{Name: name, Value: uint64(i)})
		}
		return list
	}
	f(btf.Enum{Name: "state", Size: 4, Values: values("TCP_ESTABLISHED", "TCP_CLOSE")}, State{"established", 0}, State{"close", 1})
	f(btf.Enum{Name: "direction", Size: 4, Values: values("DIRECTION_IN", "DIRECTION_OUT")}, State{"in", 0}, State{"out", 1})
	f(btf.Enum{Name: "skb_drop_reason", Size: 4, Values: values("SKB_CONSUMED", "SKB_DROP_REASON_NO_SOCKET")},
		State{"consumed", 0}, State{"no_socket", 1})
	f(btf.Enum{Name: "x", Size: 4, Values: values("X_ONLY_ONE")}, State{"only_one", 0})
	f(btf.Enum{Name: "kind", Size: 4, Values: values("KIND_A_X", "KIND_A_Y")}, State{"x", 0}, State{"y", 1})
	f(btf.Enum{Name: "big", Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 0xffffffff80000000}, {Name: "B"}}}, State{"a", 1 << 31}, State{"b", 0})
	f(btf.Enum{Name: "big", Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "A", Value: 1<<64 - 1}, {Name: "B"}}}, State{"a", -1}, State{"b", 0})
}
