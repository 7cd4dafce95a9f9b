package programs_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// burnCPU computes for as many milliseconds of CPU time as each line of its input says.
func burnCPU() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ms, err := strconv.Atoi(lines.Text())
		if err != nil {
			fmt.Println(err)
			return
		}
		for until := cpuTime() + time.Duration(ms)*time.Millisecond; cpuTime() < until; {
		}
		fmt.Println("done")
	}
}

func TestThrottling(t *testing.T) {
	group := newControlled(t, "cpu")
	throttled, factor := "throttled_usec ", uint64(1000)
	if group.v1 {
		throttled, factor = "throttled_time ", 1
		group.write(t, "cpu.cfs_period_us", "20000")
		group.write(t, "cpu.cfs_quota_us", "2000")
	} else {
		group.write(t, "cgroup.subtree_control", "+cpu")
		group.write(t, "cpu.max", "2000 20000")
	}
	// The number is each cgroup's own: one that has no quota has none, the one below has another.
	free, unit := group.child(t, "free"), group.child(t, "kaon-test.service")
	if !group.v1 {
		unit.write(t, "cgroup.subtree_control", "+cpu")
	}
	below := unit.child(t, "below")
	if group.v1 {
		below.write(t, "cpu.cfs_period_us", "20000")
		below.write(t, "cpu.cfs_quota_us", "1000")
	} else {
		below.write(t, "cpu.max", "1000 20000")
	}
	r := load(t, "throttling", group.dir)
	families := r.collect()
	expect(t, families, "cpu_throttled_periods_total", 0)
	expect(t, families, "cpu_throttled_seconds_total", 0)
	expect(t, families, "cpu_quota_seconds", 2000, "cgroup="+group.path)
	expect(t, families, "cpu_quota_seconds", 1000, "unit=kaon-test.service")
	expect(t, families, "cpu_quota_seconds", 3000)

	for _, c := range []controlled{free, below} {
		h := c.start(t, "burn")
		if answer := h.say("8"); answer != "done" {
			t.Fatal(answer)
		}
		h.wait()
	}
	read := func(c controlled) [3]uint64 {
		var n [3]uint64
		for i, name := range []string{"nr_periods ", "nr_throttled ", throttled} {
			n[i], _ = c.number(t, "cpu.stat", name)
		}
		n[2] *= factor
		return n
	}
	for attempt := 0; ; attempt++ {
		want := map[string][3]uint64{"cgroup=" + group.path: read(group), "unit=kaon-test.service": read(below)}
		families = r.collect()
		if read(group) != want["cgroup="+group.path] || read(below) != want["unit=kaon-test.service"] {
			if attempt > 200 {
				t.Fatal("the numbers never stand still")
			}
			time.Sleep(5 * time.Millisecond) // a period ends
			continue
		}
		for label, n := range want {
			if n[1] == 0 || n[2] == 0 {
				t.Errorf("%s: the kernel throttled nothing: %v", label, n)
			}
			expect(t, families, "cpu_quota_periods_total", n[0], label)
			expect(t, families, "cpu_throttled_periods_total", n[1], label)
			expect(t, families, "cpu_throttled_seconds_total", n[2], label)
		}
		break
	}
	if got := pick(families["cpu_quota_periods_total"], "cgroup="+free.path); len(got) != 0 {
		t.Errorf("one without a quota: %v", got)
	}
}
