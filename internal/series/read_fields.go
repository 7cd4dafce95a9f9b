package series

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

const (
	errNoDevice = unix.ENODEV // a cgroup that was removed while its file was open
	errNoData   = unix.ENODATA
)

// fieldReader reads numbers by their names from host files or from the files of cgroups.
type fieldReader struct {
	reader  *program.Reader
	cgroups workload.Lister
	// What to read of cgroups of v2 (also: of host files) and v1, a plan for each file.
	unified, legacy []fieldPlan
	data            []byte
	// Of the entry that is being read: whether each number is there.
	found []bool
}

// fieldPlan says which numbers of one file are wanted.
type fieldPlan struct {
	controller, file string
	first            []fieldTarget            // the first number of the file
	lines            map[string][]fieldTarget // "NAME 123"
	members          map[string]lineMembers   // "LINE NAME=123" and pairs of lines
	// unlimited numbers, and negative ones, are none: so v1 writes what v2 calls "max". 0: there are no such.
	unlimited uint64
}

type lineMembers map[string][]fieldTarget

// fieldTarget is where in the value a number goes, and what it is multiplied with.
type fieldTarget struct {
	index    int
	multiply uint64
}

// maxFieldFile bounds how much of a file is read, in bytes.
const maxFieldFile = 1 << 20

// legacyUnlimited is what v1 says of a limit that there is not: LONG_MAX cut to pages, of at most 64 KiB.
const legacyUnlimited = 1<<63 - 64<<10

func newFieldReader(_ *program.Spec, r *program.Reader, _ Source, _ *buffer, options *Options) (reader, readerInfo, error) {
	f := r.Fields
	bad := func(what string) (reader, readerInfo, error) {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: %s", ErrUnreadable, r.Name, what)
	}
	if f == nil || len(f.Numbers) == 0 || uint64(r.ValueSize) != 8*uint64(len(f.Numbers)) {
		return bad("each number needs 8 bytes in the value")
	}
	for _, m := range r.Metrics {
		if len(m.Cells) != 1 || m.Cells[0].Size != 8 || m.Cells[0].Offset%8 != 0 || int(m.Cells[0].Offset/8) >= len(f.Numbers) {
			return bad("metric " + m.Name + " is not one of the numbers")
		}
	}
	read := &fieldReader{reader: r, cgroups: options.Cgroups, data: make([]byte, 16<<10), found: make([]bool, len(f.Numbers))}
	if f.Path == "" {
		if options.Cgroups == nil {
			return bad("the machine's cgroups are not known")
		}
		if r.KeySize != 8 {
			return bad("the key of cgroups is a workload, of 8 bytes")
		}
	} else {
		if len(f.Keys) != len(r.Key) {
			return bad("each string of the key needs a label")
		}
		if err := checkFileKeys(r, f.Path, f.Keys); err != nil {
			return bad(err.Error())
		}
	}
	for i, n := range f.Numbers {
		if f.Path != "" {
			n.Unified.File = f.Path
		}
		read.unified = plan(read.unified, n.Unified, i, 0)
		read.legacy = plan(read.legacy, n.Legacy, i, legacyUnlimited)
	}
	// A cgroup of which all is zero is no series: most have no quota.
	return read, readerInfo{dense: f.Path == "", additive: f.Path != ""}, nil
}

// plan adds a number to the plan of its file.
func plan(plans []fieldPlan, place program.FieldPlace, index int, unlimited uint64) []fieldPlan {
	if place.File == "" {
		return plans
	}
	at := -1
	for i := range plans {
		if plans[i].file == place.File && plans[i].controller == place.Controller {
			at = i
		}
	}
	if at < 0 {
		at = len(plans)
		plans = append(plans, fieldPlan{controller: place.Controller, file: place.File, lines: map[string][]fieldTarget{}, members: map[string]lineMembers{}, unlimited: unlimited})
	}
	p, target := &plans[at], fieldTarget{index, max(place.Multiply, 1)}
	line, member, two := strings.Cut(place.Field, " ")
	switch {
	case two:
		if p.members[line] == nil {
			p.members[line] = lineMembers{}
		}
		p.members[line][member] = append(p.members[line][member], target)
	case line != "":
		p.lines[line] = append(p.lines[line], target)
	default:
		p.first = append(p.first, target)
	}
	return plans
}

func (r *fieldReader) open() (parts, error) {
	return parts{1, int(r.reader.ValueSize), int(r.reader.ValueSize)}, nil
}

func (r *fieldReader) read(ctx context.Context, yield func(keys, values []byte, n int)) error {
	key, value := make([]byte, r.reader.KeySize), make([]byte, r.reader.ValueSize)
	if path := r.reader.Fields.Path; path != "" {
		return eachFile(ctx, path, func(path string) error {
			clear(key)
			if !fileKey(key, r.reader.Key, r.reader.Fields.Keys, path) {
				return nil
			}
			r.begin(value)
			if err := r.file(path, &r.unified[0], value); err != nil {
				return err
			}
			if slices.Contains(r.found, true) {
				yield(key, value, 1)
			}
			return nil
		})
	}
	groups := r.cgroups.Workloads
	if r.reader.Fields.Own {
		groups = r.cgroups.Cgroups
	}
	for _, g := range groups() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read files of cgroups: %w", err)
		}
		plans := r.unified
		if !g.Unified() {
			plans = r.legacy
		}
		r.begin(value)
		for i := range plans {
			dir := r.cgroups.Directory(g, plans[i].controller)
			if dir == "" {
				continue
			}
			if err := r.file(dir+"/"+plans[i].file, &plans[i], value); err != nil && !goneFile(err) {
				return err
			}
		}
		if slices.Contains(r.found, true) {
			binary.LittleEndian.PutUint64(key, uint64(g.ID))
			yield(key, value, 1)
		}
	}
	return nil
}

// begin forgets the last entry.
func (r *fieldReader) begin(value []byte) {
	clear(value)
	clear(r.found)
}

// absent implements sparse.
func (r *fieldReader) absent(m *program.Metric) bool { return !r.found[m.Cells[0].Offset/8] }

// file reads a file and puts what is wanted of it into the value.
func (r *fieldReader) file(path string, p *fieldPlan, value []byte) error {
	fd, err := openFile(path)
	if err != nil {
		return fmt.Errorf("read file: %s: %w", path, err)
	}
	defer unix.Close(fd)
	size := 0
	for {
		if size == len(r.data) {
			if size >= maxFieldFile {
				return fmt.Errorf("read %s: %w: it has more than %d bytes", path, ErrUnreadable, maxFieldFile)
			}
			r.data = append(r.data, make([]byte, size)...)
		}
		n, err := unix.Read(fd, r.data[size:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n <= 0 {
			break
		}
		size += n
	}
	p.parse(r.data[:size], value, r.found)
	return nil
}

func openFile(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// parse puts the numbers of a file's text into the value.
func (p *fieldPlan) parse(data, value []byte, found []bool) {
	if p.first != nil {
		column, _ := nextColumn(data)
		p.put(p.first, column, value, found)
	}
	if len(p.lines)+len(p.members) == 0 {
		return
	}
	for len(data) > 0 {
		var line []byte
		line, data = nextLine(data)
		name, rest := nextColumn(line)
		paired := bytes.HasSuffix(name, []byte(":"))
		name = bytes.TrimSuffix(name, []byte(":"))
		if targets := p.lines[string(name)]; targets != nil {
			column, _ := nextColumn(rest)
			p.put(targets, column, value, found)
		}
		members := p.members[string(name)]
		if members == nil {
			continue
		}
		var numbers []byte
		if paired {
			second, after := nextLine(data)
			if again, columns := nextColumn(second); bytes.Equal(bytes.TrimSuffix(again, []byte(":")), name) {
				numbers, data = columns, after
			}
		}
		p.columns(members, rest, numbers, value, found)
	}
}

// columns looks for members of a line: NAME=123 in names, or NAME in names and 123 at the same place in numbers.
func (p *fieldPlan) columns(members lineMembers, names, numbers, value []byte, found []bool) {
	for {
		var name, number []byte
		if name, names = nextColumn(names); len(name) == 0 {
			return
		}
		number, numbers = nextColumn(numbers)
		if before, after, ok := bytes.Cut(name, []byte("=")); ok {
			name, number = before, after
		}
		p.put(members[string(name)], number, value, found)
	}
}

// put writes a number to where it is wanted. Text that is no number is none.
func (p *fieldPlan) put(targets []fieldTarget, text, value []byte, found []bool) {
	if len(targets) == 0 {
		return
	}
	n, ok := wholeNumber(text)
	if !ok || p.unlimited > 0 && n >= p.unlimited {
		return
	}
	for _, t := range targets {
		high, product := bits.Mul64(n, t.multiply)
		if high != 0 && text[0] != '-' {
			continue
		}
		binary.LittleEndian.PutUint64(value[8*t.index:], product)
		found[t.index] = true
	}
}

func nextLine(data []byte) (line, rest []byte) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return data[:i], data[i+1:]
	}
	return data, nil
}

// nextColumn cuts the first column off a line, empty if there is none.
func nextColumn(line []byte) (column, rest []byte) {
	for len(line) > 0 && isSpace(line[0]) {
		line = line[1:]
	}
	for i, c := range line {
		if isSpace(c) {
			return line[:i], line[i+1:]
		}
	}
	return line, nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
