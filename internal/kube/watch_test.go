package kube

import (
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
)

func TestWatchFor(t *testing.T) {
	told := make(chan error, 10)
	// An empty watch, as the client library returns when it is hung up on.
	f := watchFor(watch.NewEmptyWatch(), func(err error) { told <- err })
	if err := <-told; !errors.Is(err, errWatchEnded) {
		t.Error(err)
	}
	if _, ok := <-f.ResultChan(); ok {
		t.Error("an event of an empty watch")
	}
	f.Stop()
	// One with an event.
	source := watch.NewFakeWithChanSize(2, false)
	f = watchFor(source, func(err error) { told <- err })
	source.Add(newPod(uidA, "web-0"))
	if e := <-f.ResultChan(); e.Type != watch.Added {
		t.Errorf("%+v", e)
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
	// It can be stopped while nobody takes its events, and again.
	source.Add(newPod(uidB, "web-1"))
	f.Stop()
	f.Stop()
	for range f.ResultChan() {
	}
	// One that lasts.
	f = watchFor(watch.NewFake(), func(err error) { told <- err })
	if err := <-told; err != nil {
		t.Error(err)
	}
	f.Stop()
	if len(told) > 0 {
		t.Error("told twice:", <-told)
	}
}
