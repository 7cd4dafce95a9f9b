package workload

import (
	"strings"
	"testing"
)

const (
	idA = "3f4b8a1c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708"
	idB = "00ff8a1c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6ff00"

	uid           = "8dbc1f1e-2c8a-4c9a-9f5e-0d2f4b1a7c33"
	uidUnderscore = "8dbc1f1e_2c8a_4c9a_9f5e_0d2f4b1a7c33"
	staticUID     = "3c1a5b7d9e0f2a4c6e8b0d1f3a5c7e9b"
)

func TestName(t *testing.T) {
	f := func(path string, want Workload) {
		t.Helper()
		if got := Name(path); got != want {
			t.Errorf("Name(%q)\n got %+v\nwant %+v", path, got, want)
		}
	}
	container := func(id, runtime string) Workload { return Workload{Container: id, Runtime: runtime} }
	pod := func(uid, id, runtime string) Workload {
		return Workload{PodUID: uid, Container: id, Runtime: runtime}
	}
	unit := func(name string) Workload { return Workload{Unit: name} }
	cgroup := func(path string) Workload { return Workload{Cgroup: path} }

	// Docker: cgroupfs driver, systemd driver, rootless, systemd or another Docker inside.
	f("/docker/"+idA, container(idA, "docker"))
	f("/system.slice/docker-"+idA+".scope", container(idA, "docker"))
	f("/system.slice/docker-"+idA+".scope/init.scope", container(idA, "docker"))
	f("/system.slice/docker-"+idA+".scope/system.slice/ssh.service", container(idA, "docker"))
	f("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-"+idA+".scope", container(idA, "docker"))
	f("/docker/"+idA+"/docker/"+idB, container(idA, "docker"))
	f("/docker/"+idA+"/system.slice/containerd.service", container(idA, "docker"))
	f("/mine/"+idA, container(idA, "")) // --cgroup-parent=/mine
	f("/ecs/9781c248-0edd-4cdb-9a93-f63cb662a5d3/"+idA, container(idA, ""))
	f("/docker", cgroup("/docker"))
	f("/system.slice/docker.service", unit("docker.service"))

	// containerd and nerdctl.
	f("/system.slice/nerdctl-"+idA+".scope", container(idA, "containerd"))
	f("/k8s.io/"+idA, container(idA, "containerd"))
	f("/system.slice/containerd.service", unit("containerd.service"))

	// Podman: root, rootless, crun's child, cgroupfs, split, pods, the monitor.
	f("/machine.slice/libpod-"+idA+".scope", container(idA, "podman"))
	f("/machine.slice/libpod-"+idA+".scope/container", container(idA, "podman"))
	f("/machine.slice/libpod-"+idA+".scope/container/init.scope", container(idA, "podman"))
	f("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-"+idA+".scope/container", container(idA, "podman"))
	f("/libpod_parent/libpod-"+idA, container(idA, "podman"))
	f("/libpod_parent/libpod-"+idA+"/supervisor", container(idA, "podman"))
	f("/system.slice/web.service/libpod-payload-"+idA, container(idA, "podman"))
	f("/machine.slice/machine-libpod_pod_"+idB+".slice/libpod-"+idA+".scope", container(idA, "podman"))
	f("/machine.slice/machine-libpod_pod_"+idB+".slice", cgroup("/machine.slice/machine-libpod_pod_"+idB+".slice"))
	f("/libpod_parent/libpod_pod_"+idB+"/libpod-"+idA, container(idA, "podman"))
	f("/machine.slice/libpod-conmon-"+idA+".scope", unit("libpod-conmon-"+idA+".scope"))

	// Kubernetes: systemd driver.
	slice := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidUnderscore + ".slice"
	f(slice+"/cri-containerd-"+idA+".scope", pod(uid, idA, "containerd"))
	f(slice+"/crio-"+idA+".scope", pod(uid, idA, "cri-o"))
	f(slice+"/crio-"+idA+".scope/container", pod(uid, idA, "cri-o"))
	f(slice+"/docker-"+idA+".scope", pod(uid, idA, "docker"))
	f(slice+"/cri-containerd-"+idA+".scope/system.slice/x.service", pod(uid, idA, "containerd"))
	f(slice+"/crio-conmon-"+idA+".scope", Workload{PodUID: uid, Unit: "crio-conmon-" + idA + ".scope"})
	f(slice, Workload{PodUID: uid, Cgroup: slice})
	f("/kubepods.slice/kubepods-pod"+uidUnderscore+".slice/cri-containerd-"+idA+".scope", pod(uid, idA, "containerd"))
	f("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod"+staticUID+".slice/crio-"+idA+".scope", pod(staticUID, idA, "cri-o"))
	f("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod"+uidUnderscore+".slice/cri-containerd-"+idA+".scope", pod(uid, idA, "containerd"))
	f("/kubepods.slice", cgroup("/kubepods.slice"))
	// cgroupfs driver; nothing in the path tells containerd from Docker.
	f("/kubepods/besteffort/pod"+uid+"/"+idA, pod(uid, idA, ""))
	f("/kubepods/pod"+uid+"/"+idA, pod(uid, idA, ""))
	f("/kubepods/burstable/pod"+staticUID+"/"+idA, pod(staticUID, idA, ""))
	f("/kubepods/burstable/pod"+uid+"/crio-"+idA, pod(uid, idA, "cri-o"))
	f("/kubepods/burstable/pod"+uid+"/"+idA+"/docker/"+idB, pod(uid, idA, ""))
	f("/kubepods/burstable/pod"+uid, Workload{PodUID: uid, Cgroup: "/kubepods/burstable/pod" + uid})
	// The kubelet with systemd's driver, the runtime with cgroupfs.
	f("/system.slice/containerd.service/kubepods-burstable-pod"+uidUnderscore+".slice:cri-containerd:"+idA, pod(uid, idA, "containerd"))
	f("/kubepods-pod"+uidUnderscore+".slice:cri-containerd:"+idA+"/child", pod(uid, idA, "containerd"))
	// Nodes that are containers (kind, k3d).
	f("/docker/"+idB+"/kubelet/kubepods/burstable/pod"+uid+"/"+idA, pod(uid, idA, ""))
	f("/system.slice/docker-"+idB+".scope"+slice+"/cri-containerd-"+idA+".scope", pod(uid, idA, "containerd"))
	f("/docker/"+idB+"/kubelet.slice", container(idB, "docker"))
	// Not pods.
	f("/pod"+uid+"/x", cgroup("/pod"+uid+"/x"))
	f("/kubepods/pod1234/x", cgroup("/kubepods/pod1234/x"))
	f("/notkubepods-pod"+uid+".slice", cgroup("/notkubepods-pod"+uid+".slice"))

	// LXC, machines.
	f("/lxc/web", container("web", "lxc"))
	f("/lxc/100/ns/system.slice/ssh.service", container("100", "lxc"))
	f("/lxc.payload.web/init.scope", container("web", "lxc"))
	f("/lxc.payload/web/init.scope", container("web", "lxc"))
	f("/lxc.monitor.web", cgroup("/lxc.monitor.web"))
	f("/machine.slice/systemd-nspawn@deb.service/payload/system.slice/x.service", container("deb", "systemd-nspawn"))
	f(`/machine.slice/systemd-nspawn@my\x2ddeb.service`, container("my-deb", "systemd-nspawn"))
	f(`/machine.slice/machine-my\x2ddeb.scope`, container("my-deb", "systemd-nspawn"))
	f(`/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0`, container("qemu-1-vm", "libvirt"))
	f("/machine/qemu-1-vm.libvirt-qemu/emulator", container("qemu-1-vm", "libvirt"))

	// systemd's units.
	f("/init.scope", unit("init.scope"))
	f("/system.slice/ssh.service", unit("ssh.service"))
	f("/system.slice/system-getty.slice/getty@tty1.service", unit("getty@tty1.service"))
	f("/system.slice/systemd-udevd.service/udev", unit("systemd-udevd.service"))
	f("/system.slice/builder.service/inner.service", unit("builder.service"))
	f(`/system.slice/dev-disk-by\x2dlabel-swap.swap`, unit(`dev-disk-by\x2dlabel-swap.swap`))
	f("/system.slice/_cpu.service", unit("cpu.service"))
	f("/user.slice/user-1000.slice/session-3.scope", unit("session-3.scope"))
	f("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-x-1.scope", unit("app-gnome-x-1.scope"))
	f("/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service/sub", unit("dbus.service"))
	f("/user.slice/user-1000.slice/user@1000.service/init.scope", unit("user@1000.service"))
	f("/user.slice/user-1000.slice/user@1000.service", unit("user@1000.service"))
	f("/system.slice", cgroup("/system.slice"))

	// Neither.
	f("/", cgroup("/"))
	f("", cgroup(""))
	f("/build/job-1", cgroup("/build/job-1"))
	f("/"+idA[1:], cgroup("/"+idA[1:]))                             // too short
	f("/"+strings.ToUpper(idA), cgroup("/"+strings.ToUpper(idA)))   // no runtime writes capitals
	f("/docker-"+idA+".scope.d", cgroup("/docker-"+idA+".scope.d")) //
	f("/a\xff\n\"b", cgroup("/a\xff\n\"b"))                         // any bytes
	f("/.service", cgroup("/.service"))                             //
	f("/machine.slice/machine-.scope", unit("machine-.scope"))      //
	f(`/machine.slice/machine-\x2f\x00\x.scope`, container(`\x2f\x00\x`, "systemd-nspawn"))
}

func FuzzName(f *testing.F) {
	for _, path := range []string{
		"/", "//", "/a/../b", "/docker/" + idA, "/kubepods/pod" + uid + "/" + idA,
		"/kubepods.slice/kubepods-pod" + uidUnderscore + ".slice:cri-containerd:" + idA,
		`/machine.slice/machine-a\x2db\x.scope/x`, "/user.slice/user@1.service/app.slice/x.service/y",
		"/lxc/", "/lxc//x", "/kubepods.slicekubepods-pod.slice", "/libpod_pod_" + idA + ".scope", "/-" + idA,
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		w := Name(path)
		n := 0
		for _, s := range []string{w.Container, w.Unit, w.Cgroup} {
			if s != "" {
				n++
			}
		}
		if n != 1 && path != "" {
			t.Fatalf("%+v says %d things", w, n)
		}
		if w.Cgroup != "" && w.Cgroup != path {
			t.Fatalf("cgroup %q", w.Cgroup)
		}
		if w.PodUID != "" && !isPodUID(w.PodUID) {
			t.Fatalf("pod UID %q", w.PodUID)
		}
		if strings.ContainsAny(w.Container+w.Unit, "/\x00") && !strings.Contains(path, "\x00") {
			t.Fatalf("separators in %+v", w)
		}
		// What is inside belongs to it.
		if w.Container != "" || w.Unit != "" {
			if inner := Name(path + "/inner"); inner != w {
				t.Fatalf("inner %+v, outer %+v", inner, w)
			}
		}
	})
}

func BenchmarkName(b *testing.B) {
	for name, path := range map[string]string{
		"pod":    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidUnderscore + ".slice/cri-containerd-" + idA + ".scope",
		"docker": "/system.slice/docker-" + idA + ".scope",
		"unit":   "/system.slice/ssh.service",
		"cgroup": "/a/b/c/d/e/f",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Name(path)
			}
		})
	}
}
