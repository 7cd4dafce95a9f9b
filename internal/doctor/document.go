package doctor

import (
	"fmt"
	"strings"
)

// Document returns the page about privileges of the reference documentation, in Markdown.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Privileges

<!-- Written by "go test ./internal/doctor -run TestDocument -update"; don't edit. -->

What each kind of hook needs, where unprivileged BPF is disabled (as it is by default). CAP_SYS_ADMIN includes
CAP_BPF and CAP_PERFMON; root has all of them. The capabilities of every hook that works on the kernel under test are verified
there: with exactly these it attaches as an ordinary user, with each one less it does not. Kernel versions are for
information: Kaon needs 5.10 and decides by trying, never by version. ` + "`kaon doctor`" + ` says what holds on your machine.

| hook | capabilities | kernel | also needs | without it |
|---|---|---|---|---|
`)
	for _, r := range Requirements() {
		names := make([]string, 0, len(r.Capabilities))
		for _, c := range r.Capabilities {
			names = append(names, c.String())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Kind, strings.Join(names, ", "), r.Since, r.Also, r.Cost)
	}
	b.WriteString("\n## Capabilities\n\n| capability | without it |\n|---|---|\n")
	for _, t := range capabilityTexts {
		fmt.Fprintf(&b, "| %s | %s |\n", t.name, t.cost)
	}
	b.WriteString(`
## As an ordinary user

With ambient CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN an agent runs most Programs. With systemd:

` + "```ini" + `
[Service]
User=kaon
AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_DAC_READ_SEARCH
LimitMEMLOCK=infinity
` + "```" + `

Then are lost: where kernel.perf_event_paranoid is above 2 (Debian's default is 3), tracepoints by name, kprobes and perf events
(they then need CAP_SYS_ADMIN; raw_tp, tp_btf, iter, kprobe.multi and uprobe.multi don't); run times of BPF programs (BPF_ENABLE_STATS needs CAP_SYS_ADMIN), the list of other tools' BPF
objects, ` + "`uprobe`, `uretprobe` and `usdt`" + ` (their ` + "`.multi`" + ` forms work), pinning in a bpffs that is root's, and mounting tracefs. CAP_DAC_READ_SEARCH
is for tracepoints by name: tracefs is readable for root only.
`)
	return b.String()
}
