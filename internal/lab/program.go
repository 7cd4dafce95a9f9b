package lab

import (
	"errors"
	"fmt"
	"math"
	"time"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// MaxSource is how long a kick program may be, in bytes.
const MaxSource = 64 << 10

// DefaultProgram is the kick program that a lab begins with, and that a reset brings back.
const DefaultProgram = `# The strength of each kick, from 0 to 100.
KICK_POWER = 27

def kick(turn, beam):
    return KICK_POWER
`

// ProgramError is what is wrong with a kick program, and where.
type ProgramError struct {
	File string `json:"file"`
	// Line and Column count from 1; 0 if unknown.
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
}

func (e *ProgramError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Program is a kick program that was loaded. It is for one goroutine.
type Program struct {
	file    string
	power   float64
	kick    starlark.Callable // nil: every kick has power
	metrics *registry
	output  string
}

// LoadProgram compiles and runs a kick program's top level: Starlark without files, network, load and clocks, bounded
// in steps, memory, nesting and output. file is its name in errors, which are of type *ProgramError. start is
// when its counters begin to count.
func LoadProgram(file string, source []byte, start time.Time) (*Program, error) {
	if len(source) > MaxSource {
		return nil, &ProgramError{File: file, Message: fmt.Sprintf("it has %d bytes: at most %d are read", len(source), MaxSource)}
	}
	options := &syntax.FileOptions{While: true, TopLevelControl: true, GlobalReassign: true}
	parsed, err := options.Parse(file, source, 0)
	if err != nil {
		return nil, located(file, err)
	}
	var r rewriter
	r.statements(parsed.Stmts)
	if r.problem != nil {
		return nil, r.problem
	}
	p := &Program{file: file, metrics: newRegistry(start)}
	predeclared := guards()
	p.metrics.declare(predeclared)
	compiled, err := starlark.FileProgram(parsed, predeclared.Has)
	if err != nil {
		return nil, located(file, err)
	}
	var globals starlark.StringDict
	err = p.run(loadSteps, true, func(thread *starlark.Thread) error {
		globals, err = compiled.Init(thread, predeclared)
		return err
	})
	if err != nil {
		return nil, err
	}
	globals.Freeze()

	power, ok := globals["KICK_POWER"]
	if !ok {
		return nil, &ProgramError{File: file, Message: "KICK_POWER is missing: write KICK_POWER = 27"}
	}
	if p.power, err = powerOf(power); err != nil {
		return nil, &ProgramError{File: file, Message: "KICK_POWER " + err.Error()}
	}
	if kick, ok := globals["kick"]; ok {
		function, ok := kick.(*starlark.Function)
		if !ok {
			return nil, &ProgramError{File: file, Message: "kick must be a function: def kick(turn, beam)"}
		}
		if function.NumParams() != 2 {
			at := function.Position()
			return nil, &ProgramError{File: file, Line: int(at.Line), Column: int(at.Col), Message: "kick has two parameters: def kick(turn, beam)"}
		}
		p.kick = function
	}
	return p, nil
}

// Power is the program's KICK_POWER.
func (p *Program) Power() float64 { return p.power }

// Output is what the program printed when it was loaded or last called.
func (p *Program) Output() string { return p.output }

// Kick asks the program for the power of one kick. A kick function that returns nothing means KICK_POWER.
func (p *Program) Kick(turn uint64, beam Beam) (float64, error) {
	if p.kick == nil {
		return p.power, nil
	}
	fields := starlark.StringDict{
		"speed": starlark.Float(beam.Speed), "ratio": starlark.Float(beam.Ratio), "gamma": starlark.Float(beam.Gamma),
		"energy": starlark.Float(beam.Energy), "elapsed": starlark.Float(beam.Elapsed),
		"temperature": starlark.Float(beam.Temperature), "protons": starlark.Float(beam.Protons),
	}
	arguments := starlark.Tuple{starlark.MakeUint64(turn), starlarkstruct.FromStringDict(starlark.String("beam"), fields)}
	power := p.power
	err := p.run(kickSteps, false, func(thread *starlark.Thread) error {
		value, err := starlark.Call(thread, p.kick, arguments, nil)
		if err != nil || value == starlark.None {
			return err
		}
		returned, err := powerOf(value)
		if err != nil {
			return fmt.Errorf("what kick returned %w", err)
		}
		power = returned
		return nil
	})
	if failed, ok := errors.AsType[*ProgramError](err); ok && failed.Line == 0 {
		at := p.kick.(*starlark.Function).Position()
		failed.Line, failed.Column = int(at.Line), int(at.Col)
	}
	return power, err
}

// run calls into the program within its bounds.
func (p *Program) run(steps uint64, loading bool, call func(*starlark.Thread) error) error {
	b := &budget{bytes: maxBytes, loading: loading}
	thread := &starlark.Thread{Name: p.file, Print: func(*starlark.Thread, string) {}}
	thread.SetMaxExecutionSteps(steps)
	thread.OnMaxSteps = func(thread *starlark.Thread) {
		thread.Cancel(fmt.Sprintf("it does not end: %d steps are allowed", steps))
	}
	thread.SetLocal(budgetKey, b)
	err := call(thread)
	if b.printed.Len() > 0 || loading {
		p.output = b.printed.String()
	}
	if err != nil {
		return located(p.file, err)
	}
	return nil
}

// powerOf checks a kick power.
func powerOf(value starlark.Value) (float64, error) {
	power, err := number(value)
	if err != nil {
		return 0, err
	}
	if power < 0 || power > maxPower {
		return 0, fmt.Errorf("is %v: it must be from 0 to %d", power, maxPower)
	}
	return power, nil
}

// number takes a finite number. Its errors go on from the name of what was given.
func number(value starlark.Value) (float64, error) {
	if _, isBool := value.(starlark.Bool); isBool {
		return 0, errors.New("is a bool, not a number")
	}
	f, ok := starlark.AsFloat(value)
	if !ok {
		return 0, fmt.Errorf("is a %s, not a number", value.Type())
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, errors.New("is not finite")
	}
	return f, nil
}

// located finds the place in the program that an error is about.
func located(file string, err error) *ProgramError {
	at := func(pos syntax.Position, message string) *ProgramError {
		return &ProgramError{File: file, Line: int(pos.Line), Column: int(pos.Col), Message: message}
	}
	if e, ok := errors.AsType[syntax.Error](err); ok {
		return at(e.Pos, e.Msg)
	}
	if list, ok := errors.AsType[resolve.ErrorList](err); ok && len(list) > 0 {
		return at(list[0].Pos, list[0].Msg)
	}
	if e, ok := errors.AsType[*starlark.EvalError](err); ok {
		for i := range e.CallStack {
			frame := e.CallStack.At(i)
			if frame.Pos.Line > 0 && frame.Pos.Filename() == file {
				return at(frame.Pos, e.Msg)
			}
		}
		return &ProgramError{File: file, Message: e.Msg}
	}
	return &ProgramError{File: file, Message: err.Error()}
}
