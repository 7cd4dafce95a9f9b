package page_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/kaon-project/kaon/internal/lab/inject"
)

// Injections call the binary that starts them: this one, here.
func TestMain(m *testing.M) {
	if inject.IsChild(os.Args[1:]) {
		if err := inject.ChildMain(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
