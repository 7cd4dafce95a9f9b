package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// exactly refuses any other number of arguments with a hint at what is wanted.
func exactly(n int, hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return errors.New(hint)
		}
		return nil
	}
}

// atLeastOne refuses to go on without arguments.
func atLeastOne(hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New(hint)
		}
		return nil
	}
}

// optionalText is a flag that tells an empty text from none.
type optionalText struct{ to **string }

func (o optionalText) String() string {
	if o.to == nil || *o.to == nil {
		return ""
	}
	return **o.to
}

func (o optionalText) Set(text string) error {
	*o.to = &text
	return nil
}

func (o optionalText) Type() string { return "text" }
