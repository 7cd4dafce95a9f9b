package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Times of the lease.
const (
	leaseDuration = 15 * time.Second
	leaseRenewal  = 4 * time.Second
)

// ErrLeaseLost says that another controller may have taken over.
var ErrLeaseLost = errors.New("the lease was lost: another controller may be in charge")

// lease makes one of several controllers the one in charge. It is client-go's leader election without its typed clients.
type lease struct {
	client               *rest.RESTClient
	namespace, name, own string
	log                  *slog.Logger

	// record and seen are the holder's latest renewal and when it was noticed, by this machine's clock.
	record coordinationv1.LeaseSpec
	seen   time.Time
}

// acquire waits until this controller is in charge.
func (l *lease) acquire(ctx context.Context) error {
	ticker := time.NewTicker(leaseRenewal / 2)
	defer ticker.Stop()
	waiting := false
	for {
		held, err := l.try(ctx)
		switch {
		case held:
			return nil
		case err != nil:
			l.log.Warn("could not take the lease", "error", err)
		case !waiting:
			waiting = true
			l.log.Info("another controller is in charge: waiting")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// keep renews the lease until the context ends, or returns ErrLeaseLost. At the end it gives the lease back.
func (l *lease) keep(ctx context.Context) error {
	ticker := time.NewTicker(leaseRenewal)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			l.release(ctx)
			return nil
		case <-ticker.C:
		}
		held, err := l.try(ctx)
		switch {
		case held:
			renewed = time.Now()
		case err == nil || time.Since(renewed) > leaseDuration-leaseRenewal:
			if ctx.Err() == nil {
				return errors.Join(ErrLeaseLost, err)
			}
		}
	}
}

// try takes or renews the lease, if nobody else holds it.
func (l *lease) try(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseRenewal)
	defer cancel()
	now := metav1.NewMicroTime(time.Now())
	var current coordinationv1.Lease
	err = l.client.Get().Namespace(l.namespace).Resource("leases").Name(l.name).Do(ctx).Into(&current)
	duration := int32(leaseDuration / time.Second)
	if apierrors.IsNotFound(err) {
		fresh := coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.name, Namespace: l.namespace},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &l.own, LeaseDurationSeconds: &duration, AcquireTime: &now, RenewTime: &now}}
		return l.written(l.client.Post().Namespace(l.namespace).Resource("leases").Body(&fresh).Do(ctx).Error())
	}
	if err != nil {
		return false, fmt.Errorf("read lease %s: %w", l.name, err)
	}
	s := &current.Spec
	if l.record.RenewTime == nil || s.RenewTime == nil || !l.record.RenewTime.Equal(s.RenewTime) {
		l.record, l.seen = *s, time.Now()
	}
	holder := ""
	if s.HolderIdentity != nil {
		holder = *s.HolderIdentity
	}
	if holder != "" && holder != l.own && time.Since(l.seen) < leaseDuration {
		return false, nil
	}
	if holder != l.own {
		transitions := int32(1)
		if s.LeaseTransitions != nil {
			transitions += *s.LeaseTransitions
		}
		s.AcquireTime, s.LeaseTransitions = &now, &transitions
	}
	s.HolderIdentity, s.LeaseDurationSeconds, s.RenewTime = &l.own, &duration, &now
	return l.written(l.client.Put().Namespace(l.namespace).Resource("leases").Name(l.name).Body(&current).Do(ctx).Error())
}

// written says what came of a write: who was slower than another does not hold the lease.
func (l *lease) written(err error) (bool, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write lease %s: %w", l.name, err)
	}
	return true, nil
}

// release lets another take over at once.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseRenewal)
	defer cancel()
	patch := fmt.Sprintf(`[{"op":"test","path":"/spec/holderIdentity","value":%q},{"op":"replace","path":"/spec/holderIdentity","value":""}]`, l.own)
	if err := l.client.Patch(jsonPatch).Namespace(l.namespace).Resource("leases").Name(l.name).Body([]byte(patch)).Do(ctx).Error(); err != nil {
		l.log.Debug("could not give the lease back", "error", err)
	}
}
