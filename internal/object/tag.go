package object

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
)

// Prefix is what distinguishes Kaon's declaration tags from others.
const Prefix = "kaon:"

// The tags that each kind of thing may carry.
var (
	programTags  = []string{"program", "name"}
	paramTags    = []string{"param", "help", "unit"}
	functionTags = []string{"alternative", "optional", "when", "unless"}
	mapTags      = []string{"type", "help", "name", "unit", "scale", "limit", "overflow", "when", "unless", "iterator", "stream", "record", "label", "decoder", "histogram", "bounds", "cpu"}
	keyTags      = []string{"label", "skip", "decoder", "help", "omitzero"}
	valueTags    = []string{"type", "help", "name", "unit", "scale", "quantile", "when", "unless", "limit", "label", "skip"}
	structTags   = []string{"histogram", "bounds", "summary", "exemplar"}
)

// tags splits "kaon:key=value" tags into a map and reports what it does not know.
func (p *parser) tags(where string, raw, known []string) map[string]string {
	tags := map[string]string{}
	for _, tag := range raw {
		text, ours := strings.CutPrefix(tag, Prefix)
		if !ours {
			continue
		}
		key, value, _ := strings.Cut(text, "=")
		if !slices.Contains(known, key) {
			fix := "the tags that may stand here are " + strings.Join(known, ", ")
			if near := program.Nearest(key, known); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			p.problem(where, fmt.Sprintf("unknown tag %q", tag), fix)
			continue
		}
		if other, twice := tags[key]; twice && other != value {
			p.problem(where, fmt.Sprintf("it has the tag %q twice, with %q and %q", key, other, value), "keep one")
			continue
		}
		tags[key] = value
	}
	return tags
}
