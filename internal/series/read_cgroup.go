package series

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// cgroupReader reads storage local to cgroups (BPF_MAP_TYPE_CGRP_STORAGE). The
// kernel lists no keys of it, and looks a value up by a cgroup's descriptor: so all
// cgroups of the v2 hierarchy are tried. The key that it yields is the workload's id.
type cgroupReader struct {
	reader *program.Reader
	source Source
	root   string
	m      *ebpf.Map
}

// cgroupStorageKey is the key of such a map as its metrics see it.
func cgroupStorageKey(r *program.Reader) *program.Reader {
	id := program.Label{Name: "workload", Member: "workload", Decoder: "workload", Field: program.Field{Size: 8}}
	adapted := *r
	adapted.KeySize, adapted.Key = 8, []program.Label{id}
	adapted.Metrics = append([]program.Metric(nil), r.Metrics...)
	for i := range adapted.Metrics {
		if len(adapted.Metrics[i].Labels) > 0 {
			adapted.Metrics[i].Labels = adapted.Key
		}
	}
	return &adapted
}

func isCgroupStorage(spec *program.Spec, source Source, r *program.Reader) bool {
	return r.Kind == program.MapReader && mapType(spec, source, r.Name) == ebpf.CgroupStorage
}

func (r *cgroupReader) open() (parts, error) {
	m := r.source.Map(r.reader.Name)
	if m == nil {
		return parts{}, fmt.Errorf("%w: %s", ErrNoMap, r.reader.Name)
	}
	if m.ValueSize() != r.reader.ValueSize {
		return parts{}, fmt.Errorf("map %s: %w: it has values of %d bytes, the spec says %d",
			r.reader.Name, ErrUnreadable, m.ValueSize(), r.reader.ValueSize)
	}
	r.m = m
	if r.root == "" {
		for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var s unix.Statfs_t
			if unix.Statfs(path, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
				r.root = path
			}
		}
		if r.root == "" {
			return parts{}, fmt.Errorf("map %s: %w: cgroup v2 is mounted neither at /sys/fs/cgroup nor at /sys/fs/cgroup/unified",
				r.reader.Name, ErrUnreadable)
		}
	}
	return parts{1, int(m.ValueSize()), int(m.ValueSize())}, nil
}

func (r *cgroupReader) read(ctx context.Context, yield func(keys, values []byte, n int)) error {
	key, value := make([]byte, 8), make([]byte, r.reader.ValueSize)
	err := filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil // removed meanwhile
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		return r.lookup(path, key, value, yield)
	})
	if err != nil {
		return fmt.Errorf("read map %s: %w", r.reader.Name, err)
	}
	return nil
}

// lookup yields the value of one cgroup unless it has none or is gone.
func (r *cgroupReader) lookup(path string, key, value []byte, yield func(keys, values []byte, n int)) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s has no inode", path)
	}
	err = r.m.Lookup(uint32(f.Fd()), value)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(key, stat.Ino)
	yield(key, value, 1)
	return nil
}
