package programs_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

// area is what the tests know of one part of the library. Each is a function in a file of its own.
type area struct {
	// metrics is what each Program promises: dashboards and alerts rely on it.
	metrics map[string]map[string]program.Type
	// helpers are what the test binary does when it is run as a measured process.
	helpers map[string]func()
	costs   []cost
}

// cost is how to measure what a Program costs by event.
type cost struct {
	program string
	params  []string
	// event is what causes one run or several: "context switch".
	event string
	// prepare comes before the Program is loaded. nil: nothing.
	prepare func(b *testing.B)
	// cause makes b.N events. nil: the Program works at scrape time only, and the event is a scrape.
	cause func(b *testing.B)
	// bpftrace is a script that does the same job, without names for workloads. Empty: there is none that can.
	bpftrace string
}

func areas() []area {
	return []area{
		processArea(), securityArea(), cpuArea(), memoryArea(), storageArea(), networkArea(), tcpArea(), kernelArea(),
		sustainabilityArea(),
	}
}

func metrics() map[string]map[string]program.Type {
	all := map[string]map[string]program.Type{}
	for _, a := range areas() {
		maps.Copy(all, a.metrics)
	}
	return all
}

func helpers() map[string]func() {
	all := map[string]func(){"wait": waitForInput}
	for _, a := range areas() {
		for name, help := range a.helpers {
			if all[name] != nil {
				panic(fmt.Sprintf("two helpers are called %q", name))
			}
			all[name] = help
		}
	}
	return all
}
