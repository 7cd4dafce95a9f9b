package monitoring

import (
	"fmt"
	"strings"
)

// byWorkload are the labels by which a workload is named, on Kubernetes and elsewhere.
const byWorkload = "namespace, pod, container, unit, cgroup"

// workloadLegend names a series by them.
const workloadLegend = "{{namespace}} {{pod}} {{container}} {{unit}} {{cgroup}}"

// selector is a metric with the dashboard's filters and further matchers.
func selector(metric string, matchers ...string) string {
	for _, v := range variables() {
		matchers = append(matchers, v.filter())
	}
	return metric + "{" + strings.Join(matchers, ",") + "}"
}

// hostSelector is selector for metrics without a workload: of the kernel, of devices, of Kaon itself.
func hostSelector(metric string, matchers ...string) string {
	return metric + "{" + strings.Join(append(matchers, `instance=~"$instance"`), ",") + "}"
}

// by is a sum by labels; "": into one.
func by(labels, expr string) string { return fmt.Sprintf("sum by (%s) (%s)", labels, expr) }

// perSecond is how fast a selected counter grows, summed by labels ("": into one).
func perSecond(selected, labels string) string {
	return by(labels, rate(selected))
}

func rate(selected string) string { return fmt.Sprintf("rate(%s[$__rate_interval])", selected) }

// events is how often something rare happened in a window, summed by labels. increase() does not see a series' first event, because
// it has no sample of 0 before: what was not there a window ago counts with all it has.
func events(selected, window, labels string) string {
	return by(labels, fmt.Sprintf("(%[1]s unless %[1]s offset %[2]s) or increase(%[1]s[%[2]s])", selected, window))
}

// share is part / whole, both already summed by the same labels.
func share(part, whole string) string { return part + " / " + whole }

// quantile of a histogram by labels: from native histograms where Prometheus scrapes them, else from classic buckets.
func quantile(q float64, selected, labels string) string {
	name, matchers, _ := strings.Cut(selected, "{")
	and := ""
	if labels != "" {
		and = ", "
	}
	return fmt.Sprintf("histogram_quantile(%[1]g, sum by (%[4]s) (rate(%[2]s{%[3]s[$__rate_interval]))) or histogram_quantile(%[1]g, sum by (%[4]s%[5]sle) (rate(%[2]s_bucket{%[3]s[$__rate_interval])))",
		q, name, matchers, labels, and)
}

// observations is how many observations a histogram gets per second, summed by labels, native or classic.
func observations(selected, labels string) string { return ofHistogram("count", selected, labels) }

// observed is how fast a histogram's sum grows: of times, seconds per second.
func observed(selected, labels string) string { return ofHistogram("sum", selected, labels) }

func ofHistogram(what, selected, labels string) string {
	name, matchers, _ := strings.Cut(selected, "{")
	return fmt.Sprintf("(histogram_%[1]s(sum by (%[4]s) (rate(%[2]s{%[3]s[$__rate_interval]))) or sum by (%[4]s) (rate(%[2]s_%[1]s{%[3]s[$__rate_interval])))",
		what, name, matchers, labels)
}

// top keeps the greatest, so that a diagram stays readable.
func top(n int, expr string) string { return fmt.Sprintf("topk(%d, %s)", n, expr) }

// not turns a matcher of a regular expression around.
func not(matcher string) string { return strings.Replace(matcher, "=~", "!~", 1) }
