package programs_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/programs"
)

var update = flag.Bool("update", false, "write README.md, the index of the library, anew")

// index is README.md: it must say what the objects and the pages say.
func index(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# The built-in programs\n\n<!-- Written by \"go test ./programs -run TestIndex -update\"; don't edit. -->\n\n" +
		"What is in the binary. `kaon run NAME` shows one, `kaon describe NAME` tells what it exports and takes, `kaon top` what it costs on your machine.\n" +
		"Costs were measured on one machine; [costs](../docs/reference/costs.md) has them beside what bpftrace takes, [kernels](../docs/reference/kernels.md) what each kernel makes of them. Programs with a * run by default.\n\n" +
		"| area | program | tells | cost |\n|---|---|---|---|\n")
	byDefault := map[string]string{}
	for _, name := range programs.Default() {
		byDefault[name] = " *"
	}
	for _, area := range programs.Areas() {
		for _, name := range programs.Names() {
			if programs.Area(name) != area {
				continue
			}
			spec, err := programs.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			if spec.Help == "" || programs.Cost(name) == "" {
				t.Errorf("%s says %q of itself and %q of its cost", name, spec.Help, programs.Cost(name))
			}
			fmt.Fprintf(&b, "| %s | [%s](%[2]s/README.md)%s | %s | %s |\n", area, name, byDefault[name], spec.Help, programs.Cost(name))
		}
	}
	b.WriteString("\nTo add one: [CONTRIBUTING](../CONTRIBUTING.md#add-a-program).\n")
	return b.String()
}

func TestIndex(t *testing.T) {
	if os.Getenv("KAON_VM") != "" {
		t.Skip("needs the repository's pages")
	}
	want := index(t)
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("README.md is out of date: run `go test ./programs -run TestIndex -update`")
	}
}
