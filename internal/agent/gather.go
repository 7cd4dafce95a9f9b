package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/series"
)

// Snapshot is what one scrape sees. Release it when it is written.
type Snapshot struct {
	// Families are sorted by name; those of one name come in the order of the Programs.
	Families  []*series.Family
	snapshots []*series.Snapshot
	// Err joins the errors of the Programs (or readers) that could not be read.
	Err error
	// LeftOut counts the series that did not fit into Limits.Series.
	LeftOut int
}

// Release gives the memory back; the families must not be used afterwards.
func (s *Snapshot) Release() {
	for _, part := range s.snapshots {
		part.Release()
	}
	s.Families, s.snapshots = nil, nil
}

// Gather reads the maps of all Programs that have a metric which want accepts (nil: all).
// A Program that can't be read is missing from the snapshot, and Err says why.
func (a *Agent) Gather(ctx context.Context, want func(metric string) bool) *Snapshot {
	a.mu.RLock()
	units, limit := slices.Clone(a.units), a.config.Limits.Series
	a.mu.RUnlock()

	// A workload that is gone already shall have its name.
	syncing, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	if err := a.workloads.Sync(syncing); err != nil {
		a.log.Debug("new workloads may be without a name", "error", err)
	}
	cancel()
	parts := make([]*series.Snapshot, len(units))
	errs := make([]error, len(units))
	var wait sync.WaitGroup
	slots := make(chan struct{}, min(runtime.GOMAXPROCS(0), 4))
	for i, u := range units {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			parts[i], errs[i] = u.collect(ctx, want)
		})
	}
	wait.Wait()

	snapshot := &Snapshot{}
	total := 0
	for i, part := range parts {
		if errs[i] != nil {
			a.log.Warn("could not read a program", "program", units[i].name, "error", errs[i])
			snapshot.Err = errors.Join(snapshot.Err, fmt.Errorf("program %s: %w", units[i].name, errs[i]))
		}
		if part == nil {
			continue
		}
		snapshot.snapshots = append(snapshot.snapshots, part)
		for j := range part.Families {
			f := &part.Families[j]
			if total+len(f.Points) > limit && limit > 0 {
				snapshot.LeftOut += len(f.Points)
				continue
			}
			total += len(f.Points)
			snapshot.Families = append(snapshot.Families, f)
		}
	}
	slices.SortStableFunc(snapshot.Families, func(x, y *series.Family) int {
		return strings.Compare(x.Metric.Name, y.Metric.Name)
	})
	a.leftOut.Add(uint64(snapshot.LeftOut))
	return snapshot
}

// collect reads one Program. The unit can't be closed meanwhile.
func (u *unit) collect(ctx context.Context, want func(string) bool) (*series.Snapshot, error) {
	u.use.RLock()
	defer u.use.RUnlock()
	if u.collector == nil {
		return nil, nil
	}
	begin := time.Now()
	snapshot, err := u.collector.Collect(ctx, want)
	u.scrape.Store(int64(time.Since(begin)))
	if snapshot != nil {
		for _, e := range snapshot.Errors {
			err = errors.Join(err, e)
		}
	}
	return snapshot, err
}
