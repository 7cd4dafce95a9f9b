package manifest

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/program"
)

func (a *applier) fileReader(field string, metric *program.Metric, f *v1alpha1.File) (int, bool) {
	if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path {
		a.problem(field+".path", fmt.Sprintf("%q is not a clean absolute path", f.Path), "begin with /, without . and ..")
	} else if _, err := filepath.Match(f.Path, ""); err != nil {
		a.problem(field+".path", fmt.Sprintf("%q is no pattern: %v", f.Path, err), "use * and ?, or [a-z]")
	}
	if !a.fileMetric(field, metric) {
		return 0, false
	}
	labels, keys := a.fileLabels(field, f)
	size := uint32(len(labels)) * program.FileColumnSize
	if f.Field == "" {
		metric.Cells = []program.Field{{Size: 8, Signed: metric.Type != program.Counter}}
		return a.addReader(program.Reader{Name: metric.Name, Kind: program.FileReader, KeySize: size, ValueSize: 8, Key: labels,
			File: &program.File{Path: f.Path, Prefix: f.Prefix, Keys: keys, Values: []int{max(f.Value, 1) - 1}}}), true
	}
	if f.Value != 0 || f.Prefix != "" {
		a.problem(field, "a number with a name has neither prefix nor column", "remove field, or prefix and value")
	}
	number := program.FieldNumber{Unified: program.FieldPlace{Field: a.fieldName(field+".field", f.Field)}}
	reader := program.Reader{Name: metric.Name, Kind: program.FieldReader, KeySize: size, Key: labels,
		Fields: &program.Fields{Path: f.Path, Keys: keys}}
	return a.addNumber(reader, metric, number), true
}

// fileMetric checks what all metrics of files have in common.
func (a *applier) fileMetric(field string, metric *program.Metric) bool {
	if kin(metric.Type) != "number" {
		a.problem(field, fmt.Sprintf("a number in a file can't be a %s", metric.Type), "use counter, gauge or unknown")
	}
	if metric.Name == "" {
		a.problem(field, "the metric needs a name", "add name beside from")
		return false
	}
	return true
}

func (a *applier) fileLabels(field string, f *v1alpha1.File) ([]program.Label, []program.FileKey) {
	var labels []program.Label
	var keys []program.FileKey
	for i, l := range f.Labels {
		at := fmt.Sprintf("%s.labels[%d]", field, i)
		if err := checkLabelName(l.Name); err != "" {
			a.problem(at+".name", err, "choose another name")
		}
		sources := 0
		for _, set := range []bool{l.Column > 0, l.Component > 0, l.File != ""} {
			if set {
				sources++
			}
		}
		if sources != 1 {
			a.problem(at, v1alpha1.WantOneFileLabel, "")
		}
		if l.Column > 0 && f.Field != "" {
			a.problem(at+".column", "a number with a name has no columns", "use component or file")
		}
		if l.Component > strings.Count(f.Path, "/") {
			a.problem(at+".component", fmt.Sprintf("%s has %d components", f.Path, strings.Count(f.Path, "/")), "count from 1")
		}
		if l.File != "" {
			a.fileName(at+".file", l.File)
		}
		labels = append(labels, program.Label{Name: l.Name, Member: l.Name, Decoder: "string",
			Field: program.Field{Offset: uint32(i) * program.FileColumnSize, Size: program.FileColumnSize}})
		keys = append(keys, program.FileKey{File: l.File, Component: l.Component, Column: max(l.Column, 1) - 1})
	}
	return labels, keys
}

func (a *applier) cgroupReader(field string, metric *program.Metric, c *v1alpha1.CgroupFile) (int, bool) {
	if !a.fileMetric(field, metric) {
		return 0, false
	}
	var number program.FieldNumber
	if c.File != "" {
		a.fileName(field+".file", c.File)
		number.Unified = program.FieldPlace{File: c.File, Field: a.fieldName(field+".field", c.Field), Multiply: uint64(c.Multiply)}
	}
	switch v1 := c.V1; {
	case v1 == nil && c.File == "":
		a.problem(field+".file", "it names no file", "write file: NAME, or v1: {controller: NAME, file: NAME}")
	case v1 != nil:
		place := program.FieldPlace{Controller: v1.Controller, File: v1.File, Field: a.fieldName(field+".v1.field", v1.Field), Multiply: uint64(v1.Multiply)}
		if place.File == "" || place.File == c.File {
			place.File = c.File
			if place.Field == "" {
				place.Field = c.Field
			}
		}
		if place.Controller == "" {
			a.problem(field+".v1.controller", "it names no controller", "write controller: memory")
		}
		a.fileName(field+".v1.file", place.File)
		number.Legacy = place
	}
	reader := program.Reader{Name: metric.Name, Kind: program.FieldReader, KeySize: 8, Fields: &program.Fields{Own: c.Own},
		Key: []program.Label{{Name: "workload", Member: "workload", Decoder: "workload", Field: program.Field{Size: 8}}}}
	return a.addNumber(reader, metric, number), true
}

// fileName refuses what is not the name of a file in a given directory.
func (a *applier) fileName(field, name string) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		a.problem(field, fmt.Sprintf("%q is no name of a file", name), "write it without a directory")
	}
}

// fieldName returns the name of a number as readers know it.
func (a *applier) fieldName(field, name string) string {
	words := strings.Fields(name)
	if len(words) > 2 || name != strings.Join(words, " ") {
		a.problem(field, fmt.Sprintf("%q is no name of a number", name), "write NAME, or LINE NAME")
		return ""
	}
	if len(words) > 0 {
		words[0] = strings.TrimSuffix(words[0], ":")
	}
	return strings.Join(words, " ")
}

// addNumber adds a number to the reader that reads the same files, and makes it the metric's.
func (a *applier) addNumber(reader program.Reader, metric *program.Metric, number program.FieldNumber) int {
	index := slices.IndexFunc(a.spec.Readers, func(r program.Reader) bool {
		return r.Kind == program.FieldReader && r.Fields.Path == reader.Fields.Path && r.Fields.Own == reader.Fields.Own &&
			slices.Equal(r.Fields.Keys, reader.Fields.Keys) && reflect.DeepEqual(r.Key, reader.Key)
	})
	if index < 0 {
		index = a.addReader(reader)
	}
	r := &a.spec.Readers[index]
	fields := *r.Fields // the one that it was cloned from stays as it is
	n := slices.Index(fields.Numbers, number)
	if n < 0 {
		n = len(fields.Numbers)
		fields.Numbers = append(slices.Clone(fields.Numbers), number)
	}
	r.Fields, r.ValueSize = &fields, 8*uint32(len(fields.Numbers))
	metric.Cells = []program.Field{{Offset: 8 * uint32(n), Size: 8, Signed: metric.Type != program.Counter}}
	return index
}
