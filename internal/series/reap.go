package series

import (
	"context"
	"fmt"
	"time"
)

const (
	// maxReaped bounds the keys that are deleted at one scrape, by about 10 ms.
	maxReaped = 8192
	// reapAfter is how long keys of dead workloads wait for a scrape.
	reapAfter = 5 * time.Minute
)

// Reap deletes the keys of workloads that are gone where nobody scraped all metrics for 5 minutes. The agent
// calls it now and then; scrapes do the same by themselves.
func (c *Collector) Reap(ctx context.Context, now time.Time) error {
	c.run.Lock()
	due := false
	if c.isClosed() { // its readers may belong to another by now
		c.run.Unlock()
		return ErrClosed
	}
	for _, r := range c.readers {
		if r.remover() != nil && r.workloads.field != nil && now.Sub(r.lastShown) >= reapAfter {
			due = true
		}
	}
	c.run.Unlock()
	if !due {
		return nil
	}
	// The first finds what is gone, and deletes what the last scrape showed.
	s, err := c.Collect(ctx, nil)
	if err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	s.Release()
	c.run.Lock()
	defer c.run.Unlock()
	if c.isClosed() {
		return ErrClosed
	}
	for _, r := range c.readers {
		if err := r.reap(ctx); err != nil {
			return fmt.Errorf("reap: %w", err)
		}
	}
	return nil
}

func (c *Collector) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// logProblem tells that keys could not be deleted. Reading goes on: they are shown for longer than they should.
func (r *readerState) logProblem(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.reapProblem && text != "" {
		r.options.Logger.Warn("keys of workloads that are gone stay in the map", "reader", r.spec.Name, "err", err)
	}
	r.reapProblem = text
}

// remover returns how to delete keys, nil if they can't be.
func (r *readerState) remover() remover {
	if m, ok := r.reader.(remover); ok && m.removes() {
		return m
	}
	return nil
}

// reap deletes the keys of dead workloads that the last complete read has shown.
// What they counted stays in the sums that they are part of.
func (r *readerState) reap(ctx context.Context) error {
	dead := r.dead
	r.dead = r.dead[:0]
	m := r.remover()
	if m == nil || len(dead) == 0 {
		return nil // a reader without keys has none of size 0 to delete
	}
	size := int(r.spec.KeySize)
	for i := 0; i+size <= len(dead); i += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := dead[i : i+size]
		value, err := m.remove(key)
		if err != nil {
			return err
		}
		p, err := r.reader.open()
		if err != nil {
			return err
		}
		if value != nil {
			r.stats.Reaped++
		}
		for _, t := range r.tables {
			t.forgetKey(key, value, p)
		}
	}
	return nil
}
