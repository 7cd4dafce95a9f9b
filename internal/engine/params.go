package engine

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// setParams writes the params into the collection's variables.
func setParams(coll *ebpf.CollectionSpec, params []program.Param) error {
	var errs []error
	for i := range params {
		if err := setParam(coll, &params[i]); err != nil {
			errs = append(errs, fmt.Errorf("param %s: %w", params[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

func setParam(coll *ebpf.CollectionSpec, p *program.Param) error {
	// Without a text the object's own default stays.
	if p.Variable == "" || p.Text() == "" {
		return nil
	}
	v := coll.Variables[p.Variable]
	if v == nil {
		return fmt.Errorf("%w: the object has no variable %s", program.ErrNoParam, p.Variable)
	}
	sized := *p
	sized.Size = v.Size()
	data, err := sized.Encode(p.Text())
	if err != nil {
		return err
	}
	return v.Set(data)
}

// setConstants writes the loader-set constants of kaon.h into an object that has them.
func setConstants(coll *ebpf.CollectionSpec, c Constants, selecting bool) error {
	for name, value := range map[string]any{
		"kaon_cgroup_mode":   c.CgroupMode,
		"kaon_cgroup_subsys": c.CgroupSubsys,
		"kaon_scope_id":      c.ScopeID,
		"kaon_scope_level":   c.ScopeLevel,
		"kaon_selecting":     uint32(boolInt(selecting)),
	} {
		v := coll.Variables[name]
		if v == nil {
			continue
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set the constant %s: %w", name, err)
		}
	}
	return nil
}
