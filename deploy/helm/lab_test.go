package helm

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// The lab is there when it is wanted, and may do nothing: what Pod Security calls restricted.
func TestLab(t *testing.T) {
	for id := range parse(t, template(t)).typed {
		if strings.Contains(id, "lab") {
			t.Errorf("by default there is %s", id)
		}
	}
	r := parse(t, template(t, "--set", "lab.enabled=true", "--api-versions", operatorKinds))
	pod := get[*appsv1.Deployment](t, r, "Deployment/kaon-lab").Spec.Template.Spec
	c := pod.Containers[0]
	if s := pod.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %+v", s)
	}
	if s := c.SecurityContext; *s.Privileged || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("the container's security context is %+v", s)
	}
	if pod.HostPID || pod.HostNetwork || pod.HostIPC || *pod.AutomountServiceAccountToken || len(pod.Volumes) != 1 || pod.Volumes[0].EmptyDir == nil {
		t.Errorf("it sees more than its own volume: %+v", pod)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Limits.Cpu().IsZero() {
		t.Error("what it injects has no limit")
	}
	port := get[*corev1.Service](t, r, "Service/kaon-lab").Spec.Ports[0]
	if port.Port != 9498 || port.TargetPort.String() != c.Ports[0].Name || c.LivenessProbe.HTTPGet.Port.String() != c.Ports[0].Name || !slices.Contains(c.Args, "--listen=:9498") {
		t.Errorf("the ports are %+v, %+v, %q", port, c.Ports, c.Args)
	}
	for _, host := range []string{"kaon-lab", "kaon-lab.kaon.svc"} {
		if !slices.Contains(c.Args, "--host="+host) {
			t.Errorf("the page may not be asked for as %s: %q", host, c.Args)
		}
	}
	monitor := r.others["PodMonitor/kaon-lab"]["spec"].(map[string]any)["podMetricsEndpoints"].([]any)[0].(map[string]any)
	if monitor["port"] != c.Ports[0].Name || monitor["interval"] != "1s" {
		t.Errorf("it is scraped by %v", monitor)
	}
	if get[*corev1.ConfigMap](t, r, "ConfigMap/kaon-lab-dashboard").Data["kaon-lab.json"] == "" {
		t.Error("there is no dashboard")
	}
	if r.typed["ConfigMap/kaon-lab"] != nil || r.typed["NetworkPolicy/kaon-lab"] != nil {
		t.Error("there is a ConfigMap without a program, or a NetworkPolicy that nobody asked for")
	}
}

// A program of one's own is in a ConfigMap, byte by byte; a volume of one's own replaces the one that a restart empties.
func TestLabProgram(t *testing.T) {
	r := parse(t, template(t, "--values", writeValues(t, everything)))
	if got, want := get[*corev1.ConfigMap](t, r, "ConfigMap/kaon-lab").Data["kick.star"], "KICK_POWER = 40\n\ndef kick(turn, beam):\n    return KICK_POWER\n"; strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("the program is %q, want %q", got, want)
	}
	pod := get[*appsv1.Deployment](t, r, "Deployment/kaon-lab").Spec.Template.Spec
	if pod.Volumes[0].ConfigMap == nil || !pod.Containers[0].VolumeMounts[0].ReadOnly {
		t.Errorf("its volume is %+v, mounted as %+v", pod.Volumes, pod.Containers[0].VolumeMounts)
	}
	if r.others["ServiceMonitor/kaon-lab"] == nil || r.others["PodMonitor/kaon-lab"] != nil {
		t.Error("with serviceMonitor.enabled the lab has no ServiceMonitor, or a PodMonitor as well")
	}
	policy := get[*networkingv1.NetworkPolicy](t, r, "NetworkPolicy/kaon-lab").Spec
	if len(policy.Ingress) != 1 || len(policy.Ingress[0].From) != 1 || len(policy.Egress) != 0 || !slices.Contains(policy.PolicyTypes, networkingv1.PolicyTypeEgress) {
		t.Errorf("the policy is %+v", policy)
	}
	r = parse(t, template(t, "--set", "lab.enabled=true,lab.volume.persistentVolumeClaim.claimName=kicks"))
	if v := get[*appsv1.Deployment](t, r, "Deployment/kaon-lab").Spec.Template.Spec.Volumes[0]; v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ClaimName != "kicks" || v.EmptyDir != nil {
		t.Errorf("the volume is %+v", v)
	}
}
