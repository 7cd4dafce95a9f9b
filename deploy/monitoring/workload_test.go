package monitoring

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// helperVariable makes the test binary play a process that is measured: "busy", or one of busy's children.
const helperVariable = "KAON_TEST_HELPER"

// nobody is a user without capabilities.
const nobody = 65534

// help plays a process and says with which code it ends.
func help(name string) int {
	play, ok := map[string]func() error{"busy": busy, "hog": hog, "mount": mount, "setuid": setuid, "nobody": unprivileged}[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no helper %q\n", name)
		return 100
	}
	if err := play(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// busy enters the cgroups of CGROUPS and does for each line of its input everything once that a panel shows. It stays for what is
// read at a scrape, and leaves a child that nobody waits for.
func busy() error {
	for dir := range strings.SplitSeq(os.Getenv("CGROUPS"), ":") {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	w := &work{dir: os.Getenv("DIRECTORY")}
	if err := w.prepare(); err != nil {
		return err
	}
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		for _, do := range []func() error{w.processes, w.privileges, w.trace, w.bpf, w.memfd, w.files, w.tcp, w.udp, w.dns, w.burn} {
			if err := do(); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return nil
}

type work struct {
	dir      string
	listener net.Listener // accepts; what comes is closed by the client first, and never here
	full     int          // a listener that accepts nothing
	open     []io.Closer
}

// child is this binary in another role.
func child(name string, attributes *syscall.SysProcAttr) *exec.Cmd {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), helperVariable+"="+name)
	command.Stderr = os.Stderr
	command.SysProcAttr = attributes
	return command
}

func (w *work) prepare() error {
	var err error
	if w.listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	go func() {
		var open []net.Conn // what is not reachable is closed some day
		for {
			c, err := w.listener.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			_, _ = open[len(open)-1].Write([]byte("hello"))
		}
	}()
	if w.full, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(w.full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(w.full, 0)); err != nil {
		return err
	}
	server, err := net.ListenPacket("udp4", "127.0.0.1:53")
	if err != nil {
		return err
	}
	go answer(server)
	return create(w.large(), memoryLimit>>20+8)
}

// processes: starts and ends of all kinds, signals, mounts, too much memory.
func (w *work) processes() error {
	_ = exec.Command("sh", "-c", "exit 3").Run()
	_ = exec.Command(filepath.Join(w.dir, "missing")).Run()
	_, _ = syscall.ForkExec(filepath.Join(w.dir, "missing"), []string{"missing"}, nil)
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		return err
	}
	if err := sleep.Process.Kill(); err != nil {
		return err
	}
	_ = sleep.Wait()
	if err := child("mount", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}).Run(); err != nil {
		return err
	}
	if err := child("hog", nil).Run(); err == nil {
		return errors.New("nothing keeps the memory hog from what it wants")
	}
	return nil
}

// hog wants more memory than there is for it.
func hog() error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, 4*memoryLimit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	return errors.New("it got all")
}

// mount mounts in a mount namespace of its own.
func mount() error {
	dir := os.Getenv("DIRECTORY")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("none", dir, "no-such-filesystem", 0, ""); err == nil {
		return errors.New("an unknown filesystem was mounted")
	}
	return errors.Join(unix.Mount("none", dir, "tmpfs", 0, ""), unix.Unmount(dir, 0))
}

// privileges: capabilities that are used and denied, users that change.
func (w *work) privileges() error {
	program := filepath.Join(w.dir, "setuid")
	if _, err := os.Stat(program); err != nil {
		data, err := os.ReadFile("/bin/true")
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(program, data, 0o700), os.Chmod(program, 0o755|os.ModeSetuid)); err != nil {
			return err
		}
	}
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return errors.Join(child("nobody", as).Run(), child("setuid", nil).Run())
}

func unprivileged() error {
	if err := unix.Chroot("/"); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("chroot: %w", err)
	}
	if _, _, err := unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0); err != unix.EPERM {
		return fmt.Errorf("setuid: %w", err)
	}
	return exec.Command(filepath.Join(os.Getenv("DIRECTORY"), "setuid")).Run()
}

func setuid() error {
	if err := unix.Chroot("/"); err != nil {
		return err
	}
	runtime.LockOSThread()
	keep := ^uintptr(0)
	for _, user := range []uintptr{nobody, 0} {
		if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, keep, user, keep); err != 0 {
			return fmt.Errorf("setresuid to %d: %w", user, err)
		}
	}
	return nil
}

// trace attaches to a child, and reads and writes its memory.
func (w *work) trace() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		return err
	}
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	pid := sleep.Process.Pid
	if err := unix.PtraceAttach(pid); err != nil {
		return err
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, unix.WALL, nil)
	return errors.Join(err, unix.PtraceDetach(pid))
}

// bpf loads a program that does nothing.
func (w *work) bpf() error {
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("MIT\x00")
	load := struct {
		kind, count   uint32
		code, license *byte
		rest          [64]byte
	}{kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: 2, code: (*byte)(unsafe.Pointer(&code[0])), license: &license[0]}
	fd, _, err := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if err != 0 {
		return fmt.Errorf("load a program: %w", err)
	}
	return unix.Close(int(fd))
}

// memfd executes a program that is in memory only.
func (w *work) memfd() error {
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("kaon-test", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, data); err != nil {
		return err
	}
	return exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)).Run()
}

// files: all operations, errors, and what goes to the disk; more than fits into the memory that there is.
func (w *work) files() error {
	path := filepath.Join(w.dir, "file")
	if _, err := os.Open(path + "-missing"); err == nil {
		return errors.New("a file exists that must not")
	}
	if err := create(path, 4); err != nil {
		return err
	}
	direct, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(direct)
	buffer, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buffer) }()
	for i := range int64(16) {
		if _, err := unix.Pread(direct, buffer, i<<16); err != nil {
			return err
		}
		if _, err := unix.Pwrite(direct, buffer, i<<16); err != nil {
			return err
		}
	}
	if err := unix.Fsync(-1); err == nil {
		return errors.New("fsync of nothing")
	}
	if _, err := os.ReadDir(w.dir); err != nil {
		return err
	}
	large, err := os.Open(w.large())
	if err != nil {
		return err
	}
	defer large.Close()
	_, err = io.Copy(io.Discard, large)
	return errors.Join(err, os.Remove(path))
}

// large is a file that the page cache can't hold.
func (w *work) large() string { return filepath.Join(w.dir, "large") }

// create writes a file of so many MiB, and sees to it that pages don't stay dirty: a cgroup of v1 would rather kill.
func create(path string, size int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	chunk := make([]byte, 1<<20)
	for i := range size {
		if _, err := file.Write(chunk); err != nil {
			return err
		}
		if i%4 == 3 {
			if err := file.Sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

// tcp: connections that are made, refused, reset, left half closed; a listener whose queue is full.
func (w *work) tcp() error {
	address := w.listener.Addr().String()
	for range 4 {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 16)); err != nil {
			return err
		}
		c.Close() // the other side stays in CLOSE_WAIT
	}
	c, err := net.Dial("tcp4", address)
	if err != nil {
		return err
	}
	reset, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("no TCP connection")
	}
	if err := errors.Join(reset.SetLinger(0), reset.Close()); err != nil {
		return err
	}
	keep, err := net.Dial("tcp4", address) // received and not read
	if err != nil {
		return err
	}
	w.open = append(w.open, keep)
	if _, err := net.Dial("tcp4", "127.0.0.1:1"); err == nil {
		return errors.New("somebody listens on port 1")
	}
	name, err := unix.Getsockname(w.full)
	if err != nil {
		return err
	}
	for range 4 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, name); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect to a full listener: %w", err)
		}
		w.open = append(w.open, os.NewFile(uintptr(fd), "waiting"))
	}
	return nil
}

// udp: a receiver that does not read, a port that nobody has, a destination that nobody knows.
func (w *work) udp() error {
	lazy, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer lazy.Close()
	sender, err := net.Dial("udp4", lazy.LocalAddr().String())
	if err != nil {
		return err
	}
	defer sender.Close()
	for range 400 {
		if _, err := sender.Write(make([]byte, 8000)); err != nil {
			return err
		}
	}
	nowhere, err := net.Dial("udp4", "127.0.0.1:2")
	if err != nil {
		return err
	}
	defer nowhere.Close()
	for range 3 {
		_, _ = nowhere.Write([]byte("anybody?")) // every other one gets the error
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}); err == nil {
		return errors.New("there is a route to 192.0.2.1")
	}
	return nil
}

// dns asks a server of its own for names that exist, that fail and that nobody answers.
func (w *work) dns() error {
	for i, name := range []string{"good", "failing", "silent", "malformed"} {
		c, err := net.Dial("udp4", "127.0.0.1:53")
		if err != nil {
			return err
		}
		query := binary.BigEndian.AppendUint16(nil, uint16(i+1))
		query = append(query, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name)))
		query = append(append(query, name...), 0, 0, 1, 0, 1)
		if _, err := c.Write(query); err != nil {
			return err
		}
		if name != "silent" {
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return err
			}
		}
		c.Close()
	}
	return nil
}

func answer(server net.PacketConn) {
	buffer := make([]byte, 512)
	for {
		n, from, err := server.ReadFrom(buffer)
		if err != nil {
			return
		}
		response := append([]byte(nil), buffer[:n]...)
		response[2], response[3] = 0x81, 0x80
		switch {
		case strings.Contains(string(response), "silent"):
			continue
		case strings.Contains(string(response), "failing"):
			response[3] |= 2 // SERVFAIL
		case strings.Contains(string(response), "malformed"):
			response = []byte{1, 2, 3}
		}
		_, _ = server.WriteTo(response, from)
	}
}

// burn uses CPU time, more than the quota allows in a period.
func (w *work) burn() error {
	x := 0
	for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); {
		x++
	}
	return nil
}
