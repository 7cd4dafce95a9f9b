package engine

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// netfilterTarget is what the target of a netfilter hook says: "family=ipv4,hook=local_in,priority=-10".
type netfilterTarget struct {
	families []string
	hook     link.NetfilterInetHook
	priority int32
}

var netfilterFamilies = map[string]link.NetfilterProtocolFamily{
	"ipv4": link.NetfilterProtoIPv4,
	"ipv6": link.NetfilterProtoIPv6,
}

var netfilterHooks = map[string]link.NetfilterInetHook{
	"pre_routing":  link.NetfilterInetPreRouting,
	"local_in":     link.NetfilterInetLocalIn,
	"forward":      link.NetfilterInetForward,
	"local_out":    link.NetfilterInetLocalOut,
	"post_routing": link.NetfilterInetPostRouting,
}

func parseNetfilter(text string) (netfilterTarget, error) {
	t := netfilterTarget{families: []string{"ipv4", "ipv6"}, hook: link.NetfilterInetLocalIn}
	for _, item := range program.SplitList(text) {
		key, value, _ := strings.Cut(item, "=")
		switch key {
		case "family":
			switch {
			case value == "inet":
			case netfilterFamilies[value] != 0:
				t.families = []string{value}
			default:
				return t, fmt.Errorf("netfilter family %q: want inet, ipv4 or ipv6", value)
			}
		case "hook":
			hook, ok := netfilterHooks[strings.ReplaceAll(strings.ToLower(value), "-", "_")]
			if !ok {
				return t, fmt.Errorf("netfilter hook %q: want pre_routing, local_in, forward, local_out or post_routing", value)
			}
			t.hook = hook
		case "priority":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n == math.MinInt32 || n == math.MaxInt32 {
				return t, fmt.Errorf("netfilter priority %q: want a number other than the smallest and the greatest of 32 bits", value)
			}
			t.priority = int32(n)
		default:
			return t, fmt.Errorf("netfilter %q: want family=, hook= and priority=", item)
		}
	}
	return t, nil
}

func netfilterTargets(_ *Engine, hook *program.Hook) ([]target, error) {
	parsed, err := parseNetfilter(hook.Target)
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, f := range parsed.families {
		targets = append(targets, target{Name: f})
	}
	return targets, nil
}

func attachNetfilter(r *attachRequest) (attachment, error) {
	parsed, err := parseNetfilter(r.hook.Target)
	if err != nil {
		return nil, err
	}
	return link.AttachNetfilter(link.NetfilterOptions{
		Program: r.program, ProtocolFamily: netfilterFamilies[r.target.Name], Hook: parsed.hook, Priority: parsed.priority,
	})
}
