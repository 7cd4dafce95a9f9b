package tables

import (
	"bytes"
	"os"
	"testing"
)

func TestHeaderIsCurrent(t *testing.T) {
	have, err := os.ReadFile("../kaon_tables.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Header()) {
		t.Fatal("kaon_tables.h is not what the generator writes: run go generate ./bpf")
	}
}

func TestOctave(t *testing.T) {
	for _, unit := range Units {
		cells, offset := Octave(unit)
		thresholds := 0
		for i, cell := range cells {
			if int(cell.Base) != thresholds {
				t.Errorf("%s: cell %d has base %d, %d thresholds are below it", unit.Name, i, cell.Base, thresholds)
			}
			if cell.Limit == ^uint64(0) {
				continue
			}
			thresholds++
			if got := int(cell.Limit >> 57 & 63); got != i {
				t.Errorf("%s: cell %d holds the threshold of cell %d", unit.Name, i, got)
			}
		}
		if thresholds != 32 {
			t.Errorf("%s: %d thresholds in an octave, want 32", unit.Name, thresholds)
		}
		if want := map[string]int{"one": 0, "ns": 956}[unit.Name]; offset != want {
			t.Errorf("%s: offset %d, want %d", unit.Name, offset, want)
		}
	}
}

func TestDeBruijn(t *testing.T) {
	number, log2 := DeBruijn()
	for n := range uint(64) {
		if got := log2[(uint64(1)<<n)*number>>58]; uint(got) != n {
			t.Errorf("log2(2^%d) = %d", n, got)
		}
	}
}
