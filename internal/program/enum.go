package program

import (
	"strings"

	"github.com/cilium/ebpf/btf"
)

// EnumStates lists the enumerators as users see them: in lower case, without the enum's own name
// (SKB_DROP_REASON_NO_SOCKET of enum skb_drop_reason: no_socket) or the part up to an underscore with which
// all of them begin (TCP_ESTABLISHED, TCP_CLOSE: established, close).
func EnumStates(t *btf.Enum) []State {
	prefix := 0
	if len(t.Values) > 1 {
		common := t.Values[0].Name
		for _, v := range t.Values[1:] {
			for !strings.HasPrefix(v.Name, common) {
				common = common[:len(common)-1]
			}
		}
		prefix = strings.LastIndexByte(common, '_') + 1
	}
	own := strings.ToLower(t.Name) + "_"
	list := make([]State, 0, len(t.Values))
	for _, v := range t.Values {
		value := int64(v.Value)
		if !t.Signed && t.Size < 8 {
			value = int64(v.Value & (1<<(8*t.Size) - 1))
		}
		name := strings.ToLower(v.Name)
		if rest, ok := strings.CutPrefix(name, own); ok && len(own) > prefix && rest != "" {
			name = rest
		} else {
			name = name[prefix:]
		}
		list = append(list, State{Name: name, Value: value})
	}
	return list
}
