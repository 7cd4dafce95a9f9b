package kube

import (
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/watch"
)

var errWatchEnded = errors.New("the API server ended the connection at once")

// watchLasts is after what time a watch without events counts as one.
const watchLasts = time.Second

// watching is a watch that tells whether it is one: where a proxy stands before an API server that is away, the
// client library returns an empty watch instead of an error.
type watching struct {
	watch.Interface
	events chan watch.Event
	stop   chan struct{}
	once   sync.Once
}

// watchFor calls tell once, with nil if the watch lasts or has an event, else with an error.
func watchFor(w watch.Interface, tell func(error)) watch.Interface {
	f := &watching{Interface: w, events: make(chan watch.Event), stop: make(chan struct{})}
	go f.forward(tell)
	return f
}

func (f *watching) forward(tell func(error)) {
	defer close(f.events)
	lasts := time.NewTimer(watchLasts)
	defer lasts.Stop()
	told := false
	is := func(err error) {
		if !told {
			told = true
			tell(err)
		}
	}
	for {
		select {
		case <-f.stop:
			return
		case <-lasts.C:
			is(nil)
		case e, ok := <-f.Interface.ResultChan():
			if !ok {
				is(errWatchEnded)
				return
			}
			is(nil)
			select {
			case f.events <- e:
			case <-f.stop:
				return
			}
		}
	}
}

// ResultChan implements watch.Interface.
func (f *watching) ResultChan() <-chan watch.Event { return f.events }

// Stop implements watch.Interface.
func (f *watching) Stop() {
	f.once.Do(func() { close(f.stop) })
	f.Interface.Stop()
}
