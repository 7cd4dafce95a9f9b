package programs_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	minorFaults = 4096
	majorFaults = 1024
)

// faultPages answers each line of its input: "minor" touches 4,096 new pages, "major PATH" 1,024 of a file's.
func faultPages() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := append(strings.Fields(lines.Text()), "")
		err := func() error {
			switch words[0] {
			case "minor":
				b, err := unix.Mmap(-1, 0, minorFaults*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
				if err != nil {
					return err
				}
				// Refused by kernels without huge pages, which is as good.
				_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
			case "major":
				fd, err := unix.Open(words[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				b, err := unix.Mmap(fd, 0, majorFaults*4096, unix.PROT_READ, unix.MAP_PRIVATE)
				if err != nil {
					return err
				}
				if err := unix.Madvise(b, unix.MADV_RANDOM); err != nil { // no page is read before it is touched
					return err
				}
				sum := byte(0)
				for i := 0; i < len(b); i += 4096 {
					sum += b[i]
				}
				if sum != 0 {
					return fmt.Errorf("the device is not empty")
				}
			}
			return nil
		}()
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("done")
	}
}

func TestFaults(t *testing.T) {
	group := newControlled(t, "memory")
	device, _ := loopDeviceOf(t, majorFaults*4096)
	large, _ := loopDeviceOf(t, 32<<20)
	r := load(t, "faults", group.dir)
	h := group.start(t, "faults")
	h.ask("start")
	prefix := ""
	if group.v1 {
		prefix = "total_"
	}
	files := map[string]string{"page_faults_total": "pgfault ", "page_faults_major_total": "pgmajfault ",
		"page_refaults_file_total": "workingset_refault_file ", "page_refaults_anon_total": "workingset_refault_anon "}
	read := func() map[string]uint64 {
		numbers := map[string]uint64{}
		for name, field := range files {
			if n, ok := group.number(t, "memory.stat", prefix+field); ok {
				numbers[name] = n
			}
		}
		return numbers
	}
	before := read()
	grown := func(name string, families map[string][]point, want, more uint64) {
		t.Helper()
		// The kernel counts in batches for each CPU, and the process has faults of its own.
		const slack = 512
		n := total(families[name]) - before[name]
		if n+slack < want || n > want+more+slack {
			t.Errorf("%s grew by %d, want about %d, or %d more", name, n, want, more)
		}
	}
	h.ask("minor")
	families := r.collect()
	grown("page_faults_total", families, minorFaults, 0)
	grown("page_faults_major_total", families, 0, 0)
	h.ask("major " + device)
	families = r.collect()
	grown("page_faults_total", families, minorFaults+majorFaults, majorFaults) // old kernels count the second try, too
	grown("page_faults_major_total", families, majorFaults, 0)

	// A file that does not fit is evicted and read again and again.
	group.setMemoryLimit(t, 40<<20)
	reader := group.start(t, "reclaim")
	for range 2 {
		reader.ask("read " + large)
	}
	for attempt := 0; ; attempt++ {
		want := read()
		families = r.collect()
		after := read()
		same := true
		for name := range files {
			same = same && want[name] == after[name]
		}
		if !same && attempt < 200 {
			continue
		}
		if n, counted := want["page_refaults_file_total"]; counted && n == 0 {
			t.Error("no page came back")
		}
		for name, n := range want {
			expect(t, families, name, n, "cgroup="+group.path)
			if all := families[name]; n > 0 && len(all) != 1 {
				t.Errorf("%s: %v", name, all)
			}
		}
		break
	}
}
