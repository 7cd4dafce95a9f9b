package lab

import (
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Bounds of one call into a kick program.
const (
	loadSteps = 1_000_000
	kickSteps = 50_000
	// maxBytes that a call may make in all, and that one value may have with everything in it.
	maxBytes      = 4 << 20
	maxValueBytes = 256 << 10
	maxDepth      = 32
	maxRange      = 10_000
	maxIntBits    = 4096
	maxPrintBytes = 8 << 10
)

var errTooLarge = errors.New("too large: values are limited to 256 KiB, nested at most 32 deep")

// budget is what one call into a program may use. It hangs on the starlark.Thread.
type budget struct {
	bytes   int
	loading bool
	printed strings.Builder
}

const budgetKey = "budget"

func budgetOf(thread *starlark.Thread) *budget {
	b, _ := thread.Local(budgetKey).(*budget)
	return b
}

// charge takes memory from the budget.
func (b *budget) charge(bytes int) error {
	if b.bytes -= bytes; b.bytes < 0 {
		return errors.New("the program makes too much data: 4 MiB for one call")
	}
	return nil
}

// weigh returns how large a value is with everything in it, each time that it occurs. What is too large is not
// looked at to the end.
func weigh(thread *starlark.Thread, value starlark.Value) (int, error) {
	w := weighing{tuples: false}
	ok := w.add(value, 0)
	thread.Steps += uint64(w.nodes / 16)
	if !ok {
		return 0, errTooLarge
	}
	return w.bytes, nil
}

type weighing struct {
	bytes, nodes int
	// tuples: what is inside other containers is not followed.
	tuples bool
}

func (w *weighing) add(value starlark.Value, depth int) bool {
	w.nodes++
	w.bytes += 16
	if w.bytes > maxValueBytes || depth > maxDepth {
		return false
	}
	switch v := value.(type) {
	case starlark.String:
		w.bytes += len(v)
	case starlark.Bytes:
		w.bytes += len(v)
	case starlark.Int:
		w.bytes += v.BigInt().BitLen() / 8
	case starlark.Tuple:
		for _, x := range v {
			if !w.add(x, depth+1) {
				return false
			}
		}
	case *starlark.List:
		if w.tuples {
			break
		}
		for i := range v.Len() {
			if !w.add(v.Index(i), depth+1) {
				return false
			}
		}
	case *starlark.Dict:
		if w.tuples {
			break
		}
		for _, item := range v.Items() {
			if !w.add(item, depth+1) {
				return false
			}
		}
	}
	return w.bytes <= maxValueBytes
}

// result charges for a value that was just made. Tuples are followed: hashing and freezing them does so as well.
func result(thread *starlark.Thread, value starlark.Value) error {
	w := weighing{tuples: true}
	ok := true
	if list, isList := value.(*starlark.List); isList {
		for i := 0; ok && i < list.Len(); i++ {
			ok = w.add(list.Index(i), 1)
		}
	} else {
		ok = w.add(value, 0)
	}
	thread.Steps += uint64(w.nodes / 16)
	if !ok {
		return errTooLarge
	}
	if i, isInt := value.(starlark.Int); isInt && i.BigInt().BitLen() > maxIntBits {
		return errors.New("the number is too large")
	}
	return budgetOf(thread).charge(w.bytes)
}

// guards are the functions that rewritten expressions call.
func guards() starlark.StringDict {
	return starlark.StringDict{
		guardCall:   starlark.NewBuiltin(guardCall, callGuard),
		guardBinary: starlark.NewBuiltin(guardBinary, binaryGuard),
		guardAssign: starlark.NewBuiltin(guardAssign, assignGuard),
		guardResult: starlark.NewBuiltin(guardResult, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			return args[0], result(thread, args[0])
		}),
		"range": starlark.NewBuiltin("range", rangeBuiltin),
		"print": starlark.NewBuiltin("print", printBuiltin),
	}
}

// light builtins don't look into what they are given.
var light = map[string]bool{"len": true, "type": true, "bool": true, "append": true, "pop": true, "insert": true}

func callGuard(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	callee, args := args[0], args[1:]
	if err := budgetOf(thread).charge(16 * (len(args) + 2*len(kwargs))); err != nil {
		return nil, err
	}
	builtin, ok := callee.(*starlark.Builtin)
	if !ok {
		return starlark.Call(thread, callee, args, kwargs)
	}
	name := builtin.Name()
	if !light[name] {
		if err := checkArguments(thread, builtin, args, kwargs); err != nil {
			return nil, err
		}
	}
	value, err := starlark.Call(thread, builtin, args, kwargs)
	if err != nil {
		return nil, err
	}
	return value, result(thread, value)
}

// checkArguments refuses calls of builtins whose time or result would be out of bounds.
func checkArguments(thread *starlark.Thread, builtin *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
	weight := 0
	add := func(value starlark.Value) error {
		w, err := weigh(thread, value)
		weight += w
		return err
	}
	for _, arg := range args {
		if err := add(arg); err != nil {
			return err
		}
	}
	for _, pair := range kwargs {
		if err := add(pair[1]); err != nil {
			return err
		}
	}
	name := builtin.Name()
	switch name {
	case "sorted", "max", "min":
		for _, value := range values(args, kwargs) {
			if _, isBuiltin := value.(*starlark.Builtin); isBuiltin {
				return fmt.Errorf("%s: key must be a function of the program, such as a lambda", name)
			}
		}
	case "index", "remove", "extend":
		if err := add(builtin.Receiver()); err != nil {
			return err
		}
	}
	receiver, isString := builtin.Receiver().(starlark.String)
	if isString {
		weight += len(receiver)
		times := 1
		switch name {
		case "join":
			times = 0
			if len(args) > 0 {
				times = max(starlark.Len(args[0]), 0)
			}
			weight += times * len(receiver)
			times = 1
		case "format":
			times = 1 + strings.Count(string(receiver), "{")
		case "replace":
			times = 1 + len(receiver)
			if len(args) > 0 {
				if old, ok := starlark.AsString(args[0]); ok {
					times = 1 + strings.Count(string(receiver), old)
				}
			}
		}
		if weight*times > maxValueBytes {
			return errTooLarge
		}
	}
	if weight > maxValueBytes {
		return errTooLarge
	}
	return budgetOf(thread).charge(weight)
}

func values(args starlark.Tuple, kwargs []starlark.Tuple) []starlark.Value {
	list := append([]starlark.Value(nil), args...)
	for _, pair := range kwargs {
		list = append(list, pair[1])
	}
	return list
}

// operators by how they are written.
var operators = func() map[string]syntax.Token {
	m := map[string]syntax.Token{}
	for op := syntax.PLUS; op <= syntax.NOT_IN; op++ {
		m[op.String()] = op
	}
	m[syntax.IN.String()], m[syntax.NOT_IN.String()] = syntax.IN, syntax.NOT_IN
	return m
}()

func binaryGuard(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	name, _ := starlark.AsString(args[0])
	op, x, y := operators[name], args[1], args[2]
	if err := checkOperands(thread, op, x, y); err != nil {
		return nil, err
	}
	switch op {
	case syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE:
		ok, err := starlark.Compare(op, x, y)
		return starlark.Bool(ok), err
	case syntax.NOT_IN:
		value, err := starlark.Binary(syntax.IN, x, y)
		if err != nil {
			return nil, err
		}
		return !value.Truth(), nil
	}
	value, err := starlark.Binary(op, x, y)
	if err != nil {
		return nil, err
	}
	return value, result(thread, value)
}

// assignGuard checks x op= y before it is done and returns y.
func assignGuard(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	name, _ := starlark.AsString(args[0])
	return args[2], checkOperands(thread, operators[name], args[1], args[2])
}

func checkOperands(thread *starlark.Thread, op syntax.Token, x, y starlark.Value) error {
	wx, err := weigh(thread, x)
	if err != nil {
		return err
	}
	wy, err := weigh(thread, y)
	if err != nil {
		return err
	}
	size := wx + wy
	switch op {
	case syntax.STAR:
		if n, seq, ok := repetition(x, y); ok {
			w, err := weigh(thread, seq)
			if err != nil {
				return err
			}
			// Both are below 2^19, or the product is too large anyway.
			size = w * max(0, min(n, maxValueBytes))
		}
	case syntax.PERCENT:
		if format, ok := x.(starlark.String); ok {
			size = wx + wy*strings.Count(string(format), "%")
		}
	}
	if size > maxValueBytes {
		return errTooLarge
	}
	return budgetOf(thread).charge(size)
}

// repetition takes n * sequence apart.
func repetition(x, y starlark.Value) (n int, sequence starlark.Value, ok bool) {
	xi, xIsInt := x.(starlark.Int)
	yi, yIsInt := y.(starlark.Int)
	if xIsInt == yIsInt {
		return 0, nil, false
	}
	if yIsInt {
		xi, y = yi, x
	}
	if _, isFloat := y.(starlark.Float); isFloat {
		return 0, nil, false
	}
	n, err := starlark.AsInt32(xi)
	if err != nil {
		n = maxValueBytes
	}
	return n, y, true
}

func rangeBuiltin(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	value, err := starlark.Call(thread, starlark.Universe["range"], args, kwargs)
	if err != nil {
		return nil, err
	}
	if starlark.Len(value) > maxRange {
		return nil, fmt.Errorf("range: at most %d numbers", maxRange)
	}
	return value, nil
}

func printBuiltin(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	separator := " "
	if err := starlark.UnpackArgs("print", nil, kwargs, "sep?", &separator); err != nil {
		return nil, err
	}
	b := budgetOf(thread)
	for i, arg := range args {
		if i > 0 {
			b.printed.WriteString(separator)
		}
		if s, ok := starlark.AsString(arg); ok {
			b.printed.WriteString(s)
		} else {
			b.printed.WriteString(arg.String())
		}
		if b.printed.Len() > maxPrintBytes {
			return nil, fmt.Errorf("print: more than %d KiB in one call", maxPrintBytes>>10)
		}
	}
	b.printed.WriteByte('\n')
	return starlark.None, nil
}
