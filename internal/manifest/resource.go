package manifest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// Limits of objects that come with a custom resource.
const (
	// MaxInline is the size in bytes of an object that stands in the resource itself.
	MaxInline = 256 << 10
	// MaxReferenced is the size in bytes of an object in a ConfigMap or Secret.
	MaxReferenced = 1 << 20
)

// Objects gives the value of a key of a ConfigMap or Secret: kind is one of the two.
type Objects func(kind, name, key string) ([]byte, error)

// ParseResource makes a spec of a custom resource: its name, and its spec as JSON. options.Objects must be set. Problems are located by
// the resource's field.
func ParseResource(name string, spec []byte, options Options) (*program.Spec, error) {
	// As a document of its own it is read as strictly as a file.
	var document bytes.Buffer
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("read resource: %w", err)
	}
	if len(spec) == 0 {
		spec = []byte("{}")
	}
	fmt.Fprintf(&document, `{"apiVersion": %q, "kind": %q, "metadata": {"name": %s}, "spec": %s}`, v1alpha1.APIVersion, v1alpha1.KindProgram, quoted, spec)
	specs, err := Parse(document.Bytes(), "", options)
	if err != nil {
		return nil, err
	}
	return specs[0], nil
}

// checkPlace refuses what is meaningless where p was found.
func checkPlace(p *v1alpha1.Program, where func(string) string, resource bool) error {
	var problems []error
	problem := func(field, what string) {
		problems = append(problems, &program.Problem{Where: where(field), What: what, Fix: "remove it"})
	}
	if !resource {
		if p.Spec.NodeSelector != nil {
			problem("spec.nodeSelector", v1alpha1.WantNoNodes)
		}
		if p.Spec.WorkloadSelector != nil {
			problem("spec.workloadSelector", v1alpha1.WantNoWorkloads)
		}
		if p.Status != nil {
			problem("status", v1alpha1.WantNoStatus)
		}
		return errors.Join(problems...)
	}
	for i, h := range p.Spec.Hooks {
		if h.PID != nil && *h.PID != 0 {
			problem(fmt.Sprintf("spec.hooks[%d].pid", i), v1alpha1.WantNoProcess)
		}
	}
	if _, ok := p.Spec.Params["pid"]; ok {
		problem("spec.params.pid", v1alpha1.WantNoProcess)
	}
	return errors.Join(problems...)
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// resolveObject parses the object that a source names.
func resolveObject(o *v1alpha1.ObjectSource, called, path string, where func(string) string, options Options) (*program.Spec, error) {
	resource := options.Objects != nil
	sources := 0
	for _, set := range []bool{o.Path != "", o.ConfigMapKeyRef != nil, o.SecretKeyRef != nil, o.Inline != ""} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		return nil, &program.Problem{Where: where("spec.source.object"), What: v1alpha1.WantOneObject, Fix: "write path: FILE"}
	}
	if o.SHA256 != "" && !hexDigest.MatchString(o.SHA256) {
		return nil, &program.Problem{Where: where("spec.source.object.sha256"), What: v1alpha1.WantSHA256, Fix: "write what sha256sum prints"}
	}
	var data []byte
	// An object that is no file is called as the Program is.
	name, at := called, ""
	var err error
	switch {
	case o.Path != "":
		name, at = o.Path, where("spec.source.object.path")
		if !filepath.IsAbs(name) {
			if resource {
				return nil, &program.Problem{Where: at, What: v1alpha1.WantAbsolutePath, Fix: "write one that begins with /"}
			}
			name = filepath.Join(filepath.Dir(path), name)
		}
		data, err = object.Read(name)
	case o.Inline != "":
		at = where("spec.source.object.inline")
		if data, err = base64.StdEncoding.DecodeString(o.Inline); err != nil {
			return nil, &program.Problem{Where: at, What: "it is not base64: " + err.Error(), Fix: "write what `base64 -w0 x.bpf.o` prints"}
		}
		err = tooLarge(len(data), MaxInline, "put it into a ConfigMap or on the nodes")
	default:
		kind, field, ref := "ConfigMap", "configMapKeyRef", o.ConfigMapKeyRef
		if ref == nil {
			kind, field, ref = "Secret", "secretKeyRef", o.SecretKeyRef
		}
		at = where("spec.source.object." + field)
		if !resource {
			return nil, &program.Problem{Where: at, What: v1alpha1.WantNoClusterRefs, Fix: "write path: FILE"}
		}
		if data, err = options.Objects(kind, ref.Name, ref.Key); err == nil {
			err = tooLarge(len(data), MaxReferenced, "put it on the nodes")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if digest := sha256.Sum256(data); o.SHA256 != "" && o.SHA256 != hex.EncodeToString(digest[:]) {
		return nil, &program.Problem{Where: where("spec.source.object.sha256"), What: fmt.Sprintf("the object's digest is %x", digest), Fix: "check where the object comes from"}
	}
	if o.Path != "" {
		return object.Parse(data, name)
	}
	spec, err := object.Parse(data, cmp.Or(name, "inline"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	spec.Origin.Path = ""
	return spec, nil
}

func tooLarge(size, limit int, fix string) error {
	if size <= limit {
		return nil
	}
	return &program.Problem{What: fmt.Sprintf("the object has %d bytes, more than %d", size, limit), Fix: fix}
}
