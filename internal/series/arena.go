package series

import "encoding/binary"

// arena holds numbered items of stride elements each, in chunks that never
// move once they are full: it grows without copying and costs one allocation for many
// items. Freed items are used again. An item's slice is valid until the next alloc.
type arena[T any] struct {
	stride int
	bits   uint32
	chunks [][]T
	next   uint32
	free   []uint32
}

// chunkElements bounds the elements of one chunk, unless a single item is larger.
const chunkElements = 4096

func newArena[T any](stride int) arena[T] {
	a := arena[T]{stride: stride}
	for stride<<(a.bits+1) <= chunkElements && a.bits < 10 {
		a.bits++
	}
	return a
}

func (a *arena[T]) chunk(i uint32) (chunk []T, at int) {
	return a.chunks[i>>a.bits], int(i&(1<<a.bits-1)) * a.stride
}

// at returns item i.
func (a *arena[T]) at(i uint32) []T {
	c, at := a.chunk(i)
	return c[at : at+a.stride : at+a.stride]
}

// one returns the single element of item i, for a stride of 1.
func (a *arena[T]) one(i uint32) *T {
	return &a.chunks[i>>a.bits][i&(1<<a.bits-1)]
}

// alloc returns the number of a zeroed item.
func (a *arena[T]) alloc() uint32 {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		clear(a.at(i))
		return i
	}
	i := a.next
	a.next++
	c, full := int(i>>a.bits), a.stride<<a.bits
	need := (int(i&(1<<a.bits-1)) + 1) * a.stride
	switch {
	case c == len(a.chunks):
		size := full
		if c == 0 {
			// Most tables are small: the first chunk grows as needed.
			size = min(full, 8*a.stride)
		}
		a.chunks = append(a.chunks, make([]T, size))
	case need > len(a.chunks[c]):
		grown := make([]T, min(full, 2*len(a.chunks[c])))
		copy(grown, a.chunks[c])
		a.chunks[c] = grown
	}
	return i
}

func (a *arena[T]) release(i uint32) { a.free = append(a.free, i) }

// index is an open-addressing hash table of item numbers; the items hold their own hashes.
type index struct {
	slots []uint32 // number + 1
	n     int
}

func (x *index) find(hash uint32, equal func(uint32) bool) (uint32, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return 0, false
		}
		if equal(s - 1) {
			return s - 1, true
		}
	}
}

func (x *index) insert(hash, number uint32, hashOf func(uint32) uint32) {
	if (x.n+1)*5 > len(x.slots)*4 {
		old := x.slots
		x.slots = make([]uint32, max(16, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				x.place(hashOf(s-1), s)
			}
		}
	}
	x.place(hash, number+1)
	x.n++
}

func (x *index) place(hash, slot uint32) {
	mask := uint32(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = slot
}

// remove takes number out and closes the gap, so that no tombstones pile up.
func (x *index) remove(hash, number uint32, hashOf func(uint32) uint32) {
	if len(x.slots) == 0 {
		return
	}
	mask := uint32(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i] != number+1 {
		if x.slots[i] == 0 {
			return
		}
		i = (i + 1) & mask
	}
	x.n--
	for j := i; ; {
		j = (j + 1) & mask
		s := x.slots[j]
		if s == 0 {
			break
		}
		// s may fill the gap unless its home lies between the gap and itself.
		if home := hashOf(s-1) & mask; (j-home)&mask >= (j-i)&mask {
			x.slots[i] = s
			i = j
		}
	}
	x.slots[i] = 0
}

// texts holds label sets. What was handed out stays valid for as long as
// somebody refers to it: nothing is overwritten, a compacted store is a new one.
type texts struct {
	chunks     [][]byte
	live, dead int
}

const textChunkBits = 15

// add stores text and returns where.
func (t *texts) add(text []byte) uint32 {
	var head [binary.MaxVarintLen32]byte
	h := binary.PutUvarint(head[:], uint64(len(text)))
	need := h + len(text)
	last := len(t.chunks) - 1
	if last < 0 || cap(t.chunks[last])-len(t.chunks[last]) < need || len(t.chunks[last]) >= 1<<textChunkBits {
		size := 1 << textChunkBits
		if last < 3 {
			size = 1 << (10 + last + 1)
		}
		t.chunks = append(t.chunks, make([]byte, 0, max(size, need)))
		last++
	}
	c := t.chunks[last]
	at := uint32(last)<<textChunkBits | uint32(len(c))
	c = append(c, head[:h]...)
	t.chunks[last] = append(c, text...)
	t.live += need
	return at
}

// get returns the text at a place that add returned.
func (t *texts) get(at uint32) []byte {
	c := t.chunks[at>>textChunkBits][at&(1<<textChunkBits-1):]
	n, h := binary.Uvarint(c)
	return c[h : h+int(n) : h+int(n)]
}

// drop accounts for a text that is no longer needed.
func (t *texts) drop(at uint32) {
	n := len(t.get(at))
	size := n + 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	t.live -= size
	t.dead += size
}

// wasteful reports that more than half of the store is dead.
func (t *texts) wasteful() bool { return t.dead > 1<<textChunkBits && t.dead > t.live }
