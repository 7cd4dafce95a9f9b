package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// ErrCapabilitiesNeeded means that this kernel does not let a process without capabilities read maps.
var ErrCapabilitiesNeeded = errors.New("this kernel refuses to read maps without capabilities")

// DropCapabilities gives up all capabilities of the process, for good. Programs stay
// loaded and readable, but nothing can be changed any more. Whether maps
// can still be read is tried before, on a thread of its own, because some kernels refuse it.
func (a *Agent) DropCapabilities(ctx context.Context) error {
	tried := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and its lack of rights with it.
		runtime.LockOSThread()
		if err := dropThread(); err != nil {
			tried <- err
			return
		}
		tried <- a.readable(ctx)
	}()
	if err := <-tried; err != nil {
		return fmt.Errorf("drop capabilities: %w: run without --drop-capabilities", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: capset: %w", errno)
	}
	a.log.Info("gave up all capabilities: programs can't be changed any more")
	return nil
}

// readable tells whether this thread may read all maps and iterators. A collection would not tell: it
// reads on whichever thread there is.
func (a *Agent) readable(ctx context.Context) error {
	for _, u := range a.all() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.readable(); err != nil {
			return fmt.Errorf("%w: program %s: %w", ErrCapabilitiesNeeded, u.name, err)
		}
	}
	return nil
}

func (u *unit) readable() error {
	u.use.RLock()
	defer u.use.RUnlock()
	if u.instance == nil {
		return nil
	}
	for i := range u.spec.Readers {
		r := &u.spec.Readers[i]
		var err error
		switch r.Kind {
		case program.MapReader:
			if m := u.instance.Map(r.Name); m != nil {
				_, err = m.NextKeyBytes(nil)
			}
		case program.IteratorReader:
			var records io.ReadCloser
			if records, err = u.instance.OpenIterator(r.Function); records != nil {
				_, err = records.Read(make([]byte, unix.Getpagesize()))
				records.Close()
			}
		}
		// Other errors have other reasons: a map that has no keys to list, an iterator that failed.
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return fmt.Errorf("read %s: %w", r.Name, err)
		}
	}
	return nil
}

func dropThread() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
