package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/programs"
)

// Joules are CPU time times watts, and grams joules times the carbon intensity: of each thread, rounded once.
func TestEnergy(t *testing.T) {
	f := func(milliwatts, gramsPerKWh uint64) {
		t.Helper()
		group := newCgroup(t)
		r := load(t, "energy", group.dir, fmt.Sprint("busy_milliwatts=", milliwatts), fmt.Sprint("grams_per_kwh=", gramsPerKWh))
		h := group.start(t, "spend")
		h.reported()
		pid := h.cmd.Process.Pid
		var microjoules, nanograms, ran uint64
		var families map[string][]point
		stopSettled(t, pid, func() bool {
			families = r.collect()
			microjoules, nanograms = 0, 0
			ran = perThread(t, pid, "schedstat", func(text string) uint64 {
				var ns uint64
				if _, err := fmt.Sscan(text, &ns); err != nil {
					t.Fatal(err)
				}
				used := (ns*milliwatts + 500_000) / 1_000_000
				microjoules += used
				nanograms += (used*gramsPerKWh + 1800) / 3600
				return ns
			})
			return total(families["energy_joules_total"]) == microjoules
		})
		if ran < uint64(computeTime) || microjoules == 0 || nanograms == 0 {
			t.Fatalf("the helper ran for %d ns: %d uJ, %d ng", ran, microjoules, nanograms)
		}
		expect(t, families, "energy_joules_total", microjoules, "cgroup="+group.path)
		expect(t, families, "energy_co2_grams_total", nanograms, "cgroup="+group.path)
		if points := families["energy_joules_total"]; len(points) != 1 {
			t.Errorf("another cgroup was measured: %v", points)
		}
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		h.wait()
	}
	f(3500, 475)
	f(1, 900) // less than a microjoule at each switch
	f(4_000_000_000, 4_000_000)
}

// idleTime is how long the machine's CPUs have been idle, as the kernel says.
func idleTime(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var user, nice, system, idle, iowait int64
	if _, err := fmt.Sscan(string(text), &name, &user, &nice, &system, &idle, &iowait); err != nil {
		t.Fatal(err)
	}
	return time.Duration(idle+iowait) * 10 * time.Millisecond
}

// CPUs are idle no longer than time goes by. Where there is something else to do all the time they are never.
func TestEnergyIdle(t *testing.T) {
	const milliwatts = 1000
	begin, idle := time.Now(), idleTime(t)
	r := load(t, "energy", "", fmt.Sprint("idle_milliwatts=", milliwatts), "grams_per_kwh=3600")
	var joules, grams uint64
	for range 100 {
		families := r.collect()
		joules, grams = total(families["energy_idle_joules_total"]), total(families["energy_idle_co2_grams_total"])
		if joules > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cpus, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*")
	if err != nil || len(cpus) == 0 {
		t.Fatal("no CPUs:", err)
	}
	most := uint64(len(cpus)) * uint64(time.Since(begin).Microseconds()) * milliwatts / 1000
	if joules > most || joules == 0 && idleTime(t)-idle > 100*time.Millisecond {
		t.Errorf("%d uJ of idle CPUs, at most %d; the kernel says %v", joules, most, idleTime(t)-idle)
	}
	if joules != grams {
		t.Errorf("%d uJ at 1 g/kJ are %d ng", joules, grams)
	}

	r = load(t, "energy", "", "idle_milliwatts=0")
	if _, exists := r.collect()["energy_idle_joules_total"]; exists {
		t.Error("idle CPUs are counted though they take nothing")
	}
}

// The meters are files, of which this is a copy.
func TestEnergyMeters(t *testing.T) {
	spec, err := programs.Load("energy")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	const pattern = "/sys/class/powercap/*/energy_uj"
	found := false
	for i := range spec.Readers {
		if file := spec.Readers[i].File; file != nil {
			if file.Path != pattern {
				t.Errorf("reads %s", file.Path)
			}
			file.Path = filepath.Join(root, "class/powercap/*/energy_uj")
			for k := range file.Keys {
				if file.Keys[k].Component > 0 {
					file.Keys[k].Component += strings.Count(root, "/") - 1 // "/sys"
				}
			}
			found = true
		}
	}
	if !found {
		t.Fatal("there is no file")
	}
	for zone, meter := range map[string][2]string{
		"intel-rapl:0": {"package-0", "262143328850"}, "intel-rapl:0:0": {"core", "8040404"}, "intel-rapl:1": {"package-1", "17"},
	} {
		dir := filepath.Join(root, "class/powercap", zone)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"name": meter[0], "energy_uj": meter[1], "max_energy_range_uj": "262143328850"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The directory of the driver itself has no meter.
	if err := os.MkdirAll(filepath.Join(root, "class/powercap/intel-rapl"), 0o755); err != nil {
		t.Fatal(err)
	}
	families := loadSpec(t, spec, newCgroup(t).dir).collect()
	expect(t, families, "energy_rapl_joules_total", 262143328850, "zone=intel-rapl:0", "part=package-0")
	expect(t, families, "energy_rapl_joules_total", 8040404, "zone=intel-rapl:0:0", "part=core")
	expect(t, families, "energy_rapl_joules_total", 262143328850+8040404+17)
}
