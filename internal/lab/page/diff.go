package page

import (
	"fmt"
	"slices"
	"strings"
)

// diff returns a unified diff with all lines of both texts, empty if they are the same. The first should be short: time
// and memory grow with the product of their lines.
func diff(beforeName, before, afterName, after string) string {
	if before == after {
		return ""
	}
	a, b := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(after))
	// common[i][j] is how many lines a[i:] and b[j:] have in common.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n@@ -%s +%s @@\n", beforeName, afterName, span(len(a)), span(len(b)))
	line := func(mark byte, text string) {
		out.WriteByte(mark)
		out.WriteString(strings.TrimSuffix(text, "\n"))
		out.WriteByte('\n')
		if !strings.HasSuffix(text, "\n") {
			out.WriteString("\\ No newline at end of file\n")
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			line(' ', a[i])
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			line('-', a[i])
			i++
		default:
			line('+', b[j])
			j++
		}
	}
	return out.String()
}

func span(lines int) string {
	if lines == 0 {
		return "0,0"
	}
	return fmt.Sprintf("1,%d", lines)
}
