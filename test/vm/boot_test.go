package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// emulator is a script in the place of the real one.
func emulator(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

const (
	hello   = "echo 'KAON:H 6.1.0'\n"
	begin   = "echo 'KAON:B ./a'; printf 'KAON:O \\026=== RUN   TestA\\n'\n"
	pass    = "printf 'KAON:O \\026--- PASS: TestA (0.01s)\\n'; echo 'KAON:E ./a 0 10'\n"
	failing = "printf 'KAON:O \\026--- FAIL: TestA (0.01s)\\n'\n"
	end     = "echo KAON:D\n"
)

func TestBoot(t *testing.T) {
	f := func(script string, ok bool, attempts int, problem string) {
		t.Helper()
		m := machine{qemu: emulator(t, script), cpus: 1, memoryMB: 64, bootTimeout: 300 * time.Millisecond, timeout: 500 * time.Millisecond, silence: time.Minute}
		b := bootWithRetry(t.Context(), slog.New(slog.DiscardHandler), m, Cached{Kernel: "6.1"}, "image", []testPackage{{name: "./a"}}, nil)
		if b.OK() != ok || b.Attempts != attempts || !strings.Contains(b.Problem, problem) || (problem == "") != (b.Problem == "") {
			t.Errorf("%s\n: ok %v, %d boots, problem %q", script, b.OK(), b.Attempts, b.Problem)
		}
		if len(b.Packages) != 1 {
			t.Errorf("%s\n: %d packages", script, len(b.Packages))
		}
	}
	f(hello+begin+pass+end, true, 1, "")
	f(hello+begin+failing+"echo 'KAON:E ./a 1 10'\n"+end, false, 1, "")
	f(hello+end, false, 1, "") // the package did not run
	// The emulator vanished: once more.
	f("exit 1", false, boots, "ended early")
	f(hello+begin+"kill -SEGV $$", false, boots, "ended early")
	flag := filepath.Join(t.TempDir(), "flag")
	f("test -e "+flag+" || { touch "+flag+"; exit 1; }\n"+hello+begin+pass+end, true, 2, "")
	// A hang while booting is the emulator's too, one in a test is not.
	f("exec sleep 5", false, boots, "did not boot")
	f(hello+begin+"exec sleep 5", false, 1, "did not end")
	// A test had failed when the guest vanished.
	f(hello+begin+failing+"exit 1", false, 1, "ended early")
	f("echo no such machine >&2; exit 1", false, boots, "no such machine")
}

// A guest that falls silent hangs with the emulator: once more.
func TestBootAgainAfterSilence(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	script := hello + begin + "test -e " + flag + " || { touch " + flag + "; exec sleep 5; }\n" + pass + end
	m := machine{qemu: emulator(t, script), cpus: 1, memoryMB: 64, bootTimeout: time.Minute, timeout: time.Minute, silence: 200 * time.Millisecond}
	b := bootWithRetry(t.Context(), slog.New(slog.DiscardHandler), m, Cached{Kernel: "6.12"}, "image", []testPackage{{name: "./a"}}, nil)
	if !b.OK() || b.Attempts != 2 || len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], "silent") {
		t.Errorf("ok %v, %d boots, warnings %q", b.OK(), b.Attempts, b.Warnings)
	}
}

func TestBootReportsBuildErrors(t *testing.T) {
	m := machine{qemu: emulator(t, hello+begin+pass+end), cpus: 1, memoryMB: 64, bootTimeout: time.Minute, timeout: time.Minute, silence: time.Minute}
	packages := []testPackage{{name: "./a"}, {name: "./b", buildError: errors.New("b.go:1: no\nmore")}}
	b := boot(t.Context(), m, Cached{}, "image", packages, nil)
	if b.OK() || b.Problem != "" || len(b.Packages) != 2 || !b.Packages[0].OK() || b.Packages[1].Problem != "does not build" || len(b.Packages[1].tail) != 2 {
		t.Errorf("problem %q, packages %+v", b.Problem, b.Packages[1])
	}
}

func TestBootReadsConsole(t *testing.T) {
	console := "SeaBIOS\r\n[    0.1] Linux\r\nKAON:W mount x: no such device\r\nKAON:H 6.1.0\r\nKAON:B ./a\r\n" +
		"KAON:O \x16=== RUN   TestA\r\nKAON:O " + strings.Repeat("x", 300<<10) + "\r\n" +
		"KAON:O \x16--- PASS: TestA (0.50s)\r\nKAON:E ./a 0 500\r\nKAON:B ./b\r\nKAON:O \x16=== RUN   TestB\r\n[  9.9] Kernel panic"
	b := &Boot{Kernel: Cached{Kernel: "6.1"}}
	var echo strings.Builder
	booted := 0
	if b.read(strings.NewReader(console), time.Now(), &echo, func() { booted++ }, func() {}) {
		t.Error("a guest that died came to its end")
	}
	if len(b.Packages) != 2 || !b.Packages[0].OK() || b.Packages[0].Seconds != 0.5 || b.Packages[1].OK() {
		t.Errorf("packages are %+v, %+v", b.Packages[0], b.Packages[1])
	}
	if booted != 1 {
		t.Errorf("booted %d times", booted)
	}
	if len(b.Warnings) != 1 || b.other[len(b.other)-1] != "[  9.9] Kernel panic" {
		t.Errorf("warnings %q, other lines %q", b.Warnings, b.other[len(b.other)-1])
	}
	if strings.Contains(echo.String(), frameworkMark) || !strings.Contains(echo.String(), "6.1     ./a: === RUN   TestA") {
		t.Errorf("echoed %.200q", echo.String())
	}
}

func TestReport(t *testing.T) {
	boots := []*Boot{{
		Kernel: Cached{Kernel: "6.1", Release: "6.1.0-50"}, Attempts: 1,
		Packages: []*PackageResult{{Package: "./a", Tests: []*TestResult{
			{Name: "TestA", Status: Passed}, {Name: "TestB", Status: Skipped, Reason: "needs x"}, {Name: "TestC", Status: Skipped, Reason: "needs x"},
		}}},
	}}
	r := newReport(boots)
	var out bytes.Buffer
	if err := r.print(&out); err != nil || !r.OK {
		t.Fatalf("ok %v, %v", r.OK, err)
	}
	if !strings.HasSuffix(out.String(), "\n1 passed, 0 failed, 2 skipped\n") || !strings.Contains(out.String(), "  needs x (on 6.1): ./a TestB, ./a TestC\n") {
		t.Errorf("printed\n%s", out.String())
	}
	boots[0].Packages[0].Tests[2].Reason = "broken"
	boots[0].Problem = "the guest ended early"
	r = newReport(boots)
	out.Reset()
	if err := r.print(&out); err != nil || r.OK {
		t.Errorf("ok %v, %v", r.OK, err)
	}
	for _, want := range []string{`TestC: skipped for "broken"`, "the guest ended early", "1 unexplained skips"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := r.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(data, &again); err != nil || again.Skipped != 2 || again.OK || again.Boots[0].Packages[0].Tests[1].Reason != "needs x" {
		t.Errorf("read back %+v, %v", again, err)
	}
}

func TestTestFiles(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{
		"a/a.go", "a/a.o", "a/testdata/x/y.txt", "a/testdata/fuzz/F/1", "a/nested/n.o", "programs/exec/exec.bpf.c", "programs/exec/testdata/z",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := testFiles(root, []string{"bpf", "programs", "a"})
	if err != nil {
		t.Fatal(err)
	}
	const want = "programs/exec/exec.bpf.c programs/exec/testdata/z a/a.o a/testdata/x/y.txt"
	if strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := testFiles(filepath.Join(root, "missing"), []string{"."}); err != nil {
		t.Errorf("a directory that is not there gave %v", err)
	}
}
