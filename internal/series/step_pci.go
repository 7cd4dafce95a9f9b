package series

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/kaon-project/kaon/internal/program"
)

// pciNames are those of the PCI ID database, which is read when the first is asked for.
type pciNames struct {
	paths []string // the first that exists is read

	once       sync.Once
	present    bool
	vendors    map[uint64]string
	devices    map[uint64]string // by vendor<<16 | device
	classes    map[uint64]string
	subclasses map[uint64]string // by class<<8 | subclass
}

func (p *pciNames) load() bool {
	p.once.Do(func() {
		for _, path := range p.paths {
			f, err := os.Open(path)
			if err != nil {
				continue
			}
			p.parse(f)
			f.Close()
			p.present = true
			return
		}
	})
	return p.present
}

// parse reads what it understands; a database that is cut short yields fewer names.
func (p *pciNames) parse(r io.Reader) {
	p.vendors, p.devices = map[uint64]string{}, map[uint64]string{}
	p.classes, p.subclasses = map[uint64]string{}, map[uint64]string{}
	var vendor, class uint64
	inVendor, inClass := false, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "\t\t"):
		case line[0] == '\t':
			n, name, ok := cutID(line[1:])
			switch {
			case !ok:
			case inVendor:
				p.devices[vendor<<16|n] = name
			case inClass:
				p.subclasses[class<<8|n] = name
			}
		case strings.HasPrefix(line, "C "):
			inVendor = false
			var name string
			if class, name, inClass = cutID(line[2:]); inClass {
				p.classes[class] = name
			}
		default:
			inClass = false
			var name string
			if vendor, name, inVendor = cutID(line); inVendor {
				p.vendors[vendor] = name
			}
		}
	}
}

// cutID splits "10de  NVIDIA Corporation".
func cutID(line string) (id uint64, name string, ok bool) {
	digits, name, ok := strings.Cut(line, "  ")
	id, err := strconv.ParseUint(digits, 16, 16)
	return id, name, ok && err == nil
}

func (p *pciNames) vendor(n uint64) string {
	if name, ok := p.vendors[n]; ok {
		return name
	}
	return fmt.Sprintf("unknown pci vendor: 0x%02x", n)
}

// device names vendor<<16 | device.
func (p *pciNames) device(n uint64) string {
	if name, ok := p.devices[n]; ok {
		return name
	}
	return fmt.Sprintf("unknown pci device: 0x%04x", n)
}

func (p *pciNames) class(n uint64) string {
	if name, ok := p.classes[n]; ok {
		return name
	}
	return fmt.Sprintf("unknown pci class: 0x%02x", n)
}

// subclass names class<<8 | subclass.
func (p *pciNames) subclass(n uint64) string {
	if name, ok := p.subclasses[n]; ok {
		return name
	}
	if _, ok := p.classes[n>>8]; ok {
		return fmt.Sprintf("unknown pci subclass: 0x%02x (class 0x%02x)", n&0xff, n>>8)
	}
	return fmt.Sprintf("unknown pci class: 0x%02x", n>>8)
}

// newPCIStep names an id, in decimal.
func newPCIStep(name func(*pciNames, uint64) string) func(*program.Step, environment) (step, error) {
	return func(_ *program.Step, env environment) (step, error) {
		return stepFunc(func(in []byte) ([]byte, result) {
			if !env.host.pci.load() {
				return []byte("missing pci.ids db"), 0
			}
			n, err := strconv.ParseUint(string(in), 10, 64)
			if err != nil {
				return in, 0
			}
			return []byte(name(env.host.pci, n)), 0
		}), nil
	}
}
