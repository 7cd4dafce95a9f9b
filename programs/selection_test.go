package programs_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

// Every Program that has code and tells workloads apart leaves it to the kernel which are measured.
func TestAllSelectInKernel(t *testing.T) {
	for _, name := range programs.Names() {
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		tellsApart := slices.ContainsFunc(spec.Readers, func(r program.Reader) bool {
			return slices.ContainsFunc(r.Key, func(l program.Label) bool { return l.Decoder == "workload" })
		})
		if want := tellsApart && len(spec.Hooks) > 0; spec.SelectsInKernel() != want {
			t.Errorf("%s selects in the kernel: %v, want %v", name, !want, want)
		}
	}
}

// A kernel that takes a Program takes it also with a selection, here of nothing.
func TestAllLoadSelecting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cache := types()
	hooks := func(t *testing.T, name string, selecting bool) ([]engine.HookStatus, error) {
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if selecting {
			spec.CgroupSets = append(spec.CgroupSets, program.CgroupSet{Map: program.SelectedMap})
		}
		// The mode decides what is asked; 2 asks for all. No cgroup is in scope.
		e, err := engine.New(engine.Options{Types: cache, MountFilesystems: true, Constants: engine.Constants{CgroupMode: 2, ScopeID: 1 << 47, ScopeLevel: 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		i, err := e.Load(context.Background(), spec)
		if err != nil {
			return nil, err
		}
		defer i.Close()
		return i.Hooks(), nil
	}
	for _, name := range programs.Names() {
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if !spec.SelectsInKernel() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			want, wantErr := hooks(t, name, false)
			got, err := hooks(t, name, true)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("with a selection %v, without %v", err, wantErr)
			}
			for i := range want {
				if got[i].State != want[i].State {
					t.Errorf("%s is %s with a selection (%v), %s without", want[i].Function, got[i].State, got[i].Err, want[i].State)
				}
			}
		})
	}
}
