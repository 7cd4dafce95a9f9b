package page

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
)

// Program is what the page shows of the kick program.
type Program struct {
	// File is its name, Path where it is.
	File string `json:"file"`
	Path string `json:"path"`
	// Source is what is in the file, or was when it could be read last. Revision names it.
	Source   string `json:"source"`
	Revision string `json:"revision"`
	// Running is the revision of the program that runs: the last good one. Empty is the original.
	Running  string  `json:"running"`
	Power    float64 `json:"power"`
	Original string  `json:"original"`
	// Problem is what is wrong; nil if nothing is.
	Problem *lab.ProgramError `json:"problem"`
	Output  string            `json:"output"`
}

// Program returns the kick program as it is.
func (s *Session) Program() Program {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.program
}

// Reload takes the program's file up.
func (s *Session) Reload(ctx context.Context) error {
	return s.do(ctx, func() error {
		s.reload()
		return nil
	})
}

// Save writes a program to its file and takes it up. If base is not empty the file must still have that
// revision: ErrChanged otherwise. A program that is broken is saved all the same, as any editor does.
func (s *Session) Save(ctx context.Context, source, base string) error {
	if len(source) > lab.MaxSource {
		return fmt.Errorf("a kick program may have %d bytes, not %d", lab.MaxSource, len(source))
	}
	return s.do(ctx, func() error {
		if base != "" {
			now, err := s.file.read()
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil && revision(now) != base {
				s.reload()
				return ErrChanged
			}
		}
		if err := s.file.write([]byte(source)); err != nil {
			return err
		}
		s.reload()
		return nil
	})
}

// reload reads the file and lets its program run if it is good.
func (s *Session) reload() {
	s.stamp = s.file.stamp()
	source, err := s.file.read()
	if err != nil {
		message := err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			message = "the file " + s.file.path + " is gone: save to write it again"
		}
		s.show(func(p *Program) { p.Problem = &lab.ProgramError{File: p.File, Message: message} })
		return
	}
	named := revision(source)
	before := s.Program()
	// The same text again changes nothing: counters would begin anew.
	if named == before.Running && named == before.Revision && s.lab.Problem() == nil {
		if before.Problem != nil {
			s.show(func(p *Program) { p.Problem = nil }) // the file was gone
		}
		return
	}
	err = s.lab.SetProgram(s.file.name(), source)
	if err == nil {
		s.log.Info("the kick program was taken up", "file", s.file.path)
	} else {
		s.log.Warn("the kick program is broken: the last good one runs", "error", err)
	}
	s.show(func(p *Program) {
		p.Source, p.Revision = string(source), named
		if err == nil {
			p.Running = named
		}
		p.Problem = s.trouble()
	})
	if _, power := s.lab.State(); power != lab.DefaultKickPower {
		s.done(StepEdit)
	}
	s.noteOwn(time.Now())
}

// trouble is the lab's problem with its program.
func (s *Session) trouble() *lab.ProgramError {
	err := s.lab.Problem()
	if err == nil {
		return nil
	}
	if problem, ok := errors.AsType[*lab.ProgramError](err); ok {
		return problem
	}
	return &lab.ProgramError{File: s.file.name(), Message: err.Error()}
}

// notice shows what became of the program while it ran: a kick that failed, what it printed.
func (s *Session) notice() {
	p := s.Program()
	text := s.lab.Output()
	problem := s.trouble()
	if problem != nil && problem.Error() != s.problem || text != p.Output {
		s.show(func(p *Program) {
			if problem != nil {
				p.Problem = problem
			}
		})
	}
}

func (s *Session) show(change func(*Program)) {
	s.mu.Lock()
	change(&s.program)
	s.program.Output = s.lab.Output()
	_, s.program.Power = s.lab.State()
	p := s.program
	s.mu.Unlock()
	s.problem = ""
	if p.Problem != nil {
		s.problem = p.Problem.Error()
	}
	if err := s.hub.publish("program", &p); err != nil {
		s.log.Warn("the kick program can't be shown", "error", err)
	}
}
