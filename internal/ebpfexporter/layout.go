package ebpfexporter

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/object"
)

// matches checks labels against the keys of a map: their sizes add up to a key's, and they begin and end where members do.
func (b *builder) matches(at place, labels []label, m *ebpf.MapSpec) bool {
	var members []object.Member
	if m.Key != nil {
		// What can't be taken apart, such as a union, is taken as it is.
		members, _ = object.Flatten(m.Key)
	}
	if n := total(labels); n != m.KeySize {
		fix := "make the sizes and paddings of the labels those of the key's members"
		if layout := describe(members, m.KeySize); layout != "" {
			fix += ": " + layout
		}
		b.problem(at+".labels", fmt.Sprintf("they take %d bytes, but the keys of the map %s have %d", n, m.Name, m.KeySize), fix)
		return false
	}
	offset := uint32(0)
	for i := range labels {
		l := &labels[i]
		end := offset + l.size
		for _, member := range members {
			first, behind := member.Field.Offset, member.Field.Offset+member.Field.Size*max(member.Field.Count, 1)
			if member.Field.BitSize > 0 || member.Field.Count > 1 {
				continue
			}
			if offset > first && offset < behind || end > first && end < behind {
				name := "member " + member.Name + " of the key"
				if member.Name == "" {
					name = "key" // a number
				}
				b.doubt(l.place, fmt.Sprintf("it takes the bytes %d to %d, but the %s takes %d to %d", offset, end-1, name, first, behind-1),
					"check size and padding: "+describe(members, m.KeySize))
				break
			}
		}
		offset = end + l.padding
	}
	return true
}

// describe tells how a key is laid out, in the words of the configuration.
func describe(members []object.Member, size uint32) string {
	var parts []string
	for i, member := range members {
		end := size
		if i+1 < len(members) {
			end = members[i+1].Field.Offset
		}
		if member.Field.BitSize > 0 {
			return ""
		}
		bytes := member.Field.Size * max(member.Field.Count, 1)
		part := fmt.Sprintf("%s size %d", member.Name, bytes)
		if member.Name == "" {
			part = fmt.Sprintf("size %d", bytes)
		}
		if behind := member.Field.Offset + bytes; end > behind {
			part += fmt.Sprintf(" padding %d", end-behind)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
