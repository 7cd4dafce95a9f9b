package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// layoutDigest identifies everything that decides what the bytes in a map mean: its type and
// sizes, and of key and value the names, offsets, types, enumerators and tags. What a map holds may be
// taken over if and only if this is the same.
func layoutDigest(coll *ebpf.CollectionSpec, name string, ms *ebpf.MapSpec) [sha256.Size]byte {
	w := &layoutWriter{hash: sha256.New(), seen: make(map[btf.Type]int)}
	w.mapSpec(ms)
	if strings.HasPrefix(name, ".data") && len(ms.Contents) == 1 {
		// Other initial values mean another state. Zeros (.bss) can't differ.
		if data, ok := ms.Contents[0].Value.([]byte); ok {
			data = slices.Clone(data)
			for _, v := range coll.Variables {
				if v.SectionName == name && uint64(v.Offset)+uint64(len(v.Value)) <= uint64(len(data)) {
					copy(data[v.Offset:], v.Value)
				}
			}
			w.printf("contents %x", data)
		}
	}
	return [sha256.Size]byte(w.hash.Sum(nil))
}

type layoutWriter struct {
	hash hash.Hash
	// seen numbers the types that were described, because types may contain themselves.
	seen map[btf.Type]int
}

func (w *layoutWriter) printf(format string, args ...any) {
	fmt.Fprintf(w.hash, format+"\n", args...)
}

func (w *layoutWriter) mapSpec(ms *ebpf.MapSpec) {
	w.printf("map %d %d %d %d %d", ms.Type, ms.KeySize, ms.ValueSize, ms.MaxEntries, ms.Flags)
	w.tags(ms.Tags)
	w.printf("key")
	w.typ(ms.Key)
	w.printf("value")
	w.typ(ms.Value)
	if ms.InnerMap != nil {
		w.printf("inner")
		w.mapSpec(ms.InnerMap)
	}
}

// tags writes those that change what numbers mean; texts for people do not.
func (w *layoutWriter) tags(tags []string) {
	for _, tag := range tags {
		if strings.HasPrefix(tag, "kaon:help=") || strings.HasPrefix(tag, "kaon:limit=") {
			continue
		}
		w.printf("tag %q", tag)
	}
}

func (w *layoutWriter) typ(t btf.Type) {
	if t == nil {
		w.printf("none")
		return
	}
	if n, ok := w.seen[t]; ok {
		w.printf("again %d", n)
		return
	}
	w.seen[t] = len(w.seen)
	switch t := t.(type) {
	case *btf.Int:
		w.printf("int %s %d %d", t.Name, t.Size, t.Encoding)
	case *btf.Float:
		w.printf("float %s %d", t.Name, t.Size)
	case *btf.Typedef:
		// The name is the meaning: kaon_port_t.
		w.printf("typedef %s", t.Name)
		w.tags(t.Tags)
		w.typ(t.Type)
	case *btf.Struct:
		w.printf("struct %s %d", t.Name, t.Size)
		w.tags(t.Tags)
		w.members(t.Members)
	case *btf.Union:
		w.printf("union %s %d", t.Name, t.Size)
		w.tags(t.Tags)
		w.members(t.Members)
	case *btf.Enum:
		w.printf("enum %s %d %v", t.Name, t.Size, t.Signed)
		for _, v := range t.Values {
			w.printf("%s %d", v.Name, v.Value)
		}
	case *btf.Array:
		w.printf("array %d", t.Nelems)
		w.typ(t.Type)
	case *btf.Pointer:
		// What a stored address points to does not change its bytes.
		w.printf("pointer")
	case *btf.Const:
		w.typ(t.Type)
	case *btf.Volatile:
		w.typ(t.Type)
	case *btf.Restrict:
		w.typ(t.Type)
	case *btf.TypeTag:
		w.printf("type tag %s", t.Value)
		w.typ(t.Type)
	case *btf.Datasec:
		w.printf("section %s %d", t.Name, t.Size)
		for _, v := range t.Vars {
			w.printf("at %d %d", v.Offset, v.Size)
			w.typ(v.Type)
		}
	case *btf.Var:
		w.printf("variable %s", t.Name)
		w.tags(t.Tags)
		w.typ(t.Type)
	default:
		w.printf("%T %s", t, t.TypeName())
	}
}

func (w *layoutWriter) members(members []btf.Member) {
	for _, m := range members {
		w.printf("member %s %d %d", m.Name, m.Offset, m.BitfieldSize)
		w.tags(m.Tags)
		w.typ(m.Type)
	}
}

// codeDigest identifies what an instance does to the kernel: the Program, its params and constants.
func (i *Instance) codeDigest() [sha256.Size]byte {
	h := sha256.New()
	// The number changes when what the engine adds to functions changes.
	fmt.Fprintf(h, "kaon 1 %d %x\n", possibleCPUs(), i.spec.Origin.Digest)
	for n := range i.spec.Params {
		p := &i.spec.Params[n]
		fmt.Fprintf(h, "param %q %q\n", p.Name, p.Value)
	}
	_ = binary.Write(h, binary.LittleEndian, i.engine.options.Constants)
	if i.spec.Selecting() {
		fmt.Fprintln(h, "selecting")
	}
	for _, f := range i.order {
		fmt.Fprintf(h, "hook %q %q %q %v %v %d %v\n", f.hook.Function, f.hook.Kind, f.hook.Target, f.hook.Interfaces, f.hook.Cgroups, f.hook.PID, f.state == Disabled)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
