package series

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

const (
	// batchKeys is how many keys one call asks for: more no longer gets faster.
	batchKeys = 1024
	// batchBytes bounds the memory for one call, unless a bucket needs more.
	batchBytes = 256 << 10
	// maxBatchBytes is where a read gives up on a bucket that keeps growing.
	maxBatchBytes = 64 << 20
)

// mapReader reads hashes and arrays: by memory where the map is mapped, else by
// batches, else (a kernel that has no batches for this type) key by key.
type mapReader struct {
	name   string
	reader *program.Reader
	source Source
	typ    ebpf.MapType
	buffer *buffer
	m      *ebpf.Map
	parts  parts
	batch  int
	// noBatch: the kernel has no batches for this map (or a test wants none).
	noBatch bool
	// small makes batches smaller than the buckets, for a test.
	small int
	// calls of the kernel by the last read, for benchmarks.
	calls  int
	memory *ebpf.Memory
}

func newMapReader(spec *program.Spec, r *program.Reader, source Source, b *buffer, _ *Options) (reader, readerInfo, error) {
	typ := mapType(spec, source, r.Name)
	if typ == ebpf.UnspecifiedMap {
		return nil, readerInfo{}, fmt.Errorf("%w: %s", ErrNoMap, r.Name)
	}
	if err := Readable(typ); err != nil {
		return nil, readerInfo{}, fmt.Errorf("map %s: %w", r.Name, err)
	}
	if r.KeySize == 0 || r.ValueSize == 0 || r.ValueSize > 1<<20 {
		return nil, readerInfo{}, fmt.Errorf("map %s: %w: keys of %d and values of %d bytes: a value may have 1 MiB",
			r.Name, ErrUnreadable, r.KeySize, r.ValueSize)
	}
	if typ == ebpf.CgroupStorage {
		return &cgroupReader{reader: r, source: source}, readerInfo{}, nil
	}
	info := readerInfo{perCPU: perCPU(typ), dense: typ == ebpf.Array || typ == ebpf.PerCPUArray}
	return &mapReader{name: r.Name, reader: r, source: source, typ: typ, buffer: b}, info, nil
}

// mapType is what the code declares or, once it is gone, what it left; UnspecifiedMap if there is no such map.
func mapType(spec *program.Spec, source Source, name string) ebpf.MapType {
	if spec.Collection == nil {
		if m := source.Map(name); m != nil {
			return m.Type()
		}
		return ebpf.UnspecifiedMap
	}
	if declared := spec.Collection.Maps[name]; declared != nil {
		return declared.Type
	}
	return ebpf.UnspecifiedMap
}

func perCPU(t ebpf.MapType) bool {
	return t == ebpf.PerCPUHash || t == ebpf.LRUCPUHash || t == ebpf.PerCPUArray || t == ebpf.PerCPUCGroupStorage
}

// attached storage (BPF_MAP_TYPE_CGROUP_STORAGE) has an entry for each cgroup that a program is attached to.
func attached(t ebpf.MapType) bool { return t == ebpf.CGroupStorage || t == ebpf.PerCPUCGroupStorage }

func (r *mapReader) capacity() int {
	if r.m == nil {
		return 0
	}
	return int(r.m.MaxEntries())
}

func (r *mapReader) open() (parts, error) {
	m := r.source.Map(r.name)
	if m == nil {
		return parts{}, fmt.Errorf("%w: %s", ErrNoMap, r.name)
	}
	if m == r.m {
		return r.parts, nil
	}
	if m.KeySize() != r.reader.KeySize || m.ValueSize() != r.reader.ValueSize {
		return parts{}, fmt.Errorf("map %s: %w: it has keys of %d and values of %d bytes, the spec says %d and %d",
			r.name, ErrUnreadable, m.KeySize(), m.ValueSize(), r.reader.KeySize, r.reader.ValueSize)
	}
	size := int(m.ValueSize())
	p := parts{1, size, size}
	if perCPU(m.Type()) {
		n, err := ebpf.PossibleCPU()
		if err != nil {
			return parts{}, fmt.Errorf("map %s: count the CPUs: %w", r.name, err)
		}
		p = parts{n, (size + 7) &^ 7, size}
	}
	r.memory = nil
	if m.Type() == ebpf.Array && m.Flags()&unix.BPF_F_MMAPABLE != 0 {
		// Where mapping is refused, batches do as well.
		if memory, err := m.Memory(); err == nil {
			r.memory = memory
			p.stride = (size + 7) &^ 7
		}
	}
	r.m, r.parts = m, p
	r.batch = max(1, min(batchKeys, int(m.MaxEntries()), batchBytes/(p.count*p.stride+int(m.KeySize()))))
	return p, nil
}

func (r *mapReader) read(ctx context.Context, yield func(keys, values []byte, n int)) error {
	switch {
	case r.memory != nil:
		return r.readMemory(ctx, yield)
	case r.noBatch || r.m.Type() == ebpf.LPMTrie || attached(r.m.Type()):
		return r.readEach(ctx, yield)
	}
	none := true
	err := r.readBatches(ctx, func(keys, values []byte, n int) {
		none = none && n == 0
		yield(keys, values, n)
	})
	if err != nil && none && (errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL)) {
		r.noBatch = true
		return r.readEach(ctx, yield)
	}
	return err
}

// readBatches reads with one call for many keys. The kernel goes bucket by
// bucket: a key that exists throughout is yielded once whatever else changes.
func (r *mapReader) readBatches(ctx context.Context, yield func(keys, values []byte, n int)) error {
	keySize, valueSize := int(r.m.KeySize()), r.parts.count*r.parts.stride
	var cursor ebpf.MapBatchCursor
	r.calls = 0
	n := r.batch
	if r.small > 0 {
		n = r.small
	}
	var keys, values any
	resize := true
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read map %s: %w", r.name, err)
		}
		if resize {
			r.buffer.grow(n*keySize, n*valueSize)
			keys = arrays(r.buffer.keys, keySize, n)
			if r.parts.count > 1 || perCPU(r.m.Type()) {
				values = r.buffer.values[:n*valueSize]
			} else {
				values = arrays(r.buffer.values, valueSize, n)
			}
			resize = false
		}
		r.calls++
		got, err := r.m.BatchLookup(&cursor, keys, values, nil)
		switch end := errors.Is(err, ebpf.ErrKeyNotExist); {
		case err == nil || end:
			yield(r.buffer.keys[:got*keySize], r.buffer.values[:got*valueSize], got)
			if end || got == 0 {
				return nil
			}
		case errors.Is(err, unix.ENOSPC):
			// A bucket holds more: nothing of it was returned and the cursor stays good.
			if n *= 2; n*(keySize+valueSize) > maxBatchBytes {
				return fmt.Errorf("read map %s: a bucket has more than %d keys: %w", r.name, n/2, err)
			}
			resize = true
		default:
			return fmt.Errorf("read map %s: %w", r.name, err)
		}
	}
}

// arrays returns memory as a slice of n byte arrays, which is how the library
// takes keys and values of any size without copying.
func arrays(b []byte, size, n int) any {
	return reflect.SliceAt(reflect.ArrayOf(size, reflect.TypeFor[byte]()), unsafe.Pointer(unsafe.SliceData(b)), n).Interface()
}

func (r *mapReader) readMemory(ctx context.Context, yield func(keys, values []byte, n int)) error {
	n := max(1, min(batchBytes/(4+r.parts.stride), int(r.m.MaxEntries())))
	r.buffer.grow(4*n, n*r.parts.stride)
	for first := 0; first < int(r.m.MaxEntries()); first += n {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read map %s: %w", r.name, err)
		}
		got := min(n, int(r.m.MaxEntries())-first)
		values := r.buffer.values[:got*r.parts.stride]
		if _, err := r.memory.ReadAt(values, int64(first)*int64(r.parts.stride)); err != nil {
			return fmt.Errorf("read the memory of map %s: %w", r.name, err)
		}
		for i := range got {
			binary.LittleEndian.PutUint32(r.buffer.keys[4*i:], uint32(first+i))
		}
		yield(r.buffer.keys[:4*got], values, got)
	}
	return nil
}

// readEach reads key by key. When the key that a step starts from was deleted
// the kernel begins again: so keys are collected first, each once, then read.
func (r *mapReader) readEach(ctx context.Context, yield func(keys, values []byte, n int)) error {
	if t := r.m.Type(); t == ebpf.Array || t == ebpf.PerCPUArray {
		return r.readIndexes(ctx, yield)
	}
	keySize := int(r.m.KeySize())
	known := make(map[string]struct{})
	var keys []byte
	key, next := make([]byte, keySize), make([]byte, keySize)
	var from any
	limit := 16*int64(r.m.MaxEntries()) + 1<<16
	for steps := int64(0); ; steps++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read map %s: %w", r.name, err)
		}
		err := r.m.NextKey(from, next)
		if steps > limit {
			return fmt.Errorf("read map %s: its keys change faster than they can be listed", r.name)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			if attached(r.m.Type()) && from != nil && r.gone(key) {
				// Such a list ends where its last key was deleted: begin again.
				from = nil
				continue
			}
			break
		}
		if err != nil {
			return fmt.Errorf("read map %s: %w", r.name, err)
		}
		if _, again := known[string(next)]; !again {
			known[string(next)] = struct{}{}
			keys = append(keys, next...)
		}
		key, next = next, key
		from = key
	}
	for i := 0; i < len(keys); i += keySize {
		if err := r.lookup(ctx, keys[i:i+keySize], yield); err != nil {
			return err
		}
	}
	return nil
}

func (r *mapReader) gone(key []byte) bool {
	value, err := r.m.LookupBytes(key)
	return err == nil && value == nil
}

func (r *mapReader) readIndexes(ctx context.Context, yield func(keys, values []byte, n int)) error {
	key := make([]byte, 4)
	for i := range r.m.MaxEntries() {
		binary.LittleEndian.PutUint32(key, i)
		if err := r.lookup(ctx, key, yield); err != nil {
			return err
		}
	}
	return nil
}

// lookup yields one key unless it is gone.
func (r *mapReader) lookup(ctx context.Context, key []byte, yield func(keys, values []byte, n int)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read map %s: %w", r.name, err)
	}
	value, err := r.m.LookupBytes(key)
	if err != nil {
		return fmt.Errorf("read map %s: %w", r.name, err)
	}
	if value != nil {
		yield(key, value, 1)
	}
	return nil
}

// removes is false where keys are not made by programs.
func (r *mapReader) removes() bool {
	return r.typ != ebpf.Array && r.typ != ebpf.PerCPUArray && !attached(r.typ)
}

// remove deletes a key with its last value, in one step where the kernel can (>= 5.14).
func (r *mapReader) remove(key []byte) ([]byte, error) {
	value, err := r.take(key)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		if value, err = r.m.LookupBytes(key); err == nil && value != nil {
			err = r.m.Delete(key)
		}
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("delete a key of map %s: %w", r.name, err)
	}
	return value, nil
}

func (r *mapReader) take(key []byte) ([]byte, error) {
	if !perCPU(r.m.Type()) {
		value := make([]byte, r.parts.size)
		return value, r.m.LookupAndDelete(key, value)
	}
	unpadded := make([]byte, r.parts.count*r.parts.size)
	if err := r.m.LookupAndDelete(key, arrays(unpadded, r.parts.size, r.parts.count)); err != nil {
		return nil, err
	}
	value := make([]byte, r.parts.count*r.parts.stride)
	for i := range r.parts.count {
		copy(value[i*r.parts.stride:], unpadded[i*r.parts.size:(i+1)*r.parts.size])
	}
	return value, nil
}
