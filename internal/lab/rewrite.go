package lab

import (
	"go.starlark.net/syntax"
)

// Names that no source can spell: what guarded expressions call.
const (
	guardCall   = "call()"
	guardBinary = "binary()"
	guardAssign = "assign()"
	guardResult = "result()"
)

// rewriter puts a guard into every expression by which one step of the interpreter could take unbounded
// time or memory: calls, operators, slices and tuples. Positions stay those of the source.
type rewriter struct {
	problem *ProgramError
}

func (r *rewriter) refuse(at syntax.Position, message string) {
	if r.problem == nil {
		r.problem = &ProgramError{File: at.Filename(), Line: int(at.Line), Column: int(at.Col), Message: message}
	}
}

func (r *rewriter) statements(list []syntax.Stmt) {
	for _, stmt := range list {
		r.statement(stmt)
	}
}

func (r *rewriter) statement(stmt syntax.Stmt) {
	switch s := stmt.(type) {
	case *syntax.AssignStmt:
		r.assignment(s)
	case *syntax.DefStmt:
		r.parameters(s.Params)
		r.statements(s.Body)
	case *syntax.ExprStmt:
		s.X = r.expression(s.X)
	case *syntax.IfStmt:
		s.Cond = r.expression(s.Cond)
		r.statements(s.True)
		r.statements(s.False)
	case *syntax.ForStmt:
		r.target(s.Vars)
		s.X = r.expression(s.X)
		r.statements(s.Body)
	case *syntax.WhileStmt:
		s.Cond = r.expression(s.Cond)
		r.statements(s.Body)
	case *syntax.ReturnStmt:
		if s.Result != nil {
			s.Result = r.expression(s.Result)
		}
	case *syntax.LoadStmt:
		r.refuse(s.Load, "load is not available: a kick program is one file")
	}
}

func (r *rewriter) assignment(s *syntax.AssignStmt) {
	if s.Op == syntax.EQ {
		r.target(s.LHS)
		s.RHS = r.expression(s.RHS)
		return
	}
	var current syntax.Expr
	switch lhs := unparenthesized(s.LHS).(type) {
	case *syntax.Ident:
		current = &syntax.Ident{NamePos: lhs.NamePos, Name: lhs.Name}
	case *syntax.IndexExpr:
		// The guard reads the element once more than the assignment, which must not be seen.
		if hasCall(lhs) {
			r.refuse(s.OpPos, "a call inside a[...] "+s.Op.String()+" is not available: give its result a name first")
			return
		}
		r.target(lhs)
		current = &syntax.IndexExpr{X: copied(lhs.X), Lbrack: lhs.Lbrack, Y: copied(lhs.Y), Rbrack: lhs.Rbrack}
		if hasUncopied(lhs) {
			r.refuse(s.OpPos, "only names and numbers are available inside a[...] "+s.Op.String()+": give the rest a name first")
			return
		}
	default:
		r.refuse(s.OpPos, "only a name or a[...] can be assigned to with "+s.Op.String())
		return
	}
	op := s.Op - syntax.PLUS_EQ + syntax.PLUS
	s.RHS = guarded(guardAssign, s.OpPos, text(s.OpPos, op.String()), current, r.expression(s.RHS))
}

// target rewrites what is evaluated on the left of an assignment.
func (r *rewriter) target(e syntax.Expr) {
	switch e := e.(type) {
	case *syntax.ParenExpr:
		r.target(e.X)
	case *syntax.TupleExpr:
		for _, x := range e.List {
			r.target(x)
		}
	case *syntax.ListExpr:
		for _, x := range e.List {
			r.target(x)
		}
	case *syntax.IndexExpr:
		e.X, e.Y = r.expression(e.X), r.expression(e.Y)
	case *syntax.DotExpr:
		e.X = r.expression(e.X)
	}
}

func (r *rewriter) parameters(params []syntax.Expr) {
	for _, p := range params {
		switch p := p.(type) {
		case *syntax.BinaryExpr:
			p.Y = r.expression(p.Y)
		case *syntax.UnaryExpr:
			r.refuse(p.OpPos, "parameters with * are not available: name each")
		}
	}
}

func (r *rewriter) list(list []syntax.Expr) {
	for i, e := range list {
		list[i] = r.expression(e)
	}
}

func (r *rewriter) expression(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.ParenExpr:
		e.X = r.expression(e.X)
	case *syntax.CallExpr:
		e.Fn = r.expression(e.Fn)
		for _, arg := range e.Args {
			r.argument(arg)
		}
		for i, arg := range e.Args {
			switch a := arg.(type) {
			case *syntax.BinaryExpr:
				if a.Op == syntax.EQ {
					continue
				}
			case *syntax.UnaryExpr:
				if a.Op == syntax.STAR || a.Op == syntax.STARSTAR {
					continue
				}
			}
			e.Args[i] = r.expression(arg)
		}
		return &syntax.CallExpr{
			Fn: &syntax.Ident{NamePos: e.Lparen, Name: guardCall}, Lparen: e.Lparen,
			Args: append([]syntax.Expr{e.Fn}, e.Args...), Rparen: e.Rparen,
		}
	case *syntax.DotExpr:
		e.X = r.expression(e.X)
	case *syntax.Comprehension:
		e.Body = r.expression(e.Body)
		for _, clause := range e.Clauses {
			switch c := clause.(type) {
			case *syntax.ForClause:
				r.target(c.Vars)
				c.X = r.expression(c.X)
			case *syntax.IfClause:
				c.Cond = r.expression(c.Cond)
			}
		}
	case *syntax.DictExpr:
		r.list(e.List)
	case *syntax.DictEntry:
		e.Key, e.Value = r.expression(e.Key), r.expression(e.Value)
	case *syntax.LambdaExpr:
		r.parameters(e.Params)
		e.Body = r.expression(e.Body)
	case *syntax.ListExpr:
		r.list(e.List)
	case *syntax.CondExpr:
		e.Cond, e.True, e.False = r.expression(e.Cond), r.expression(e.True), r.expression(e.False)
	case *syntax.TupleExpr:
		r.list(e.List)
		return guarded(guardResult, syntax.Start(e), e)
	case *syntax.UnaryExpr:
		if e.X != nil {
			e.X = r.expression(e.X)
		}
	case *syntax.BinaryExpr:
		e.X, e.Y = r.expression(e.X), r.expression(e.Y)
		if e.Op == syntax.AND || e.Op == syntax.OR {
			return e
		}
		return guarded(guardBinary, e.OpPos, text(e.OpPos, e.Op.String()), e.X, e.Y)
	case *syntax.SliceExpr:
		e.X = r.expression(e.X)
		for _, bound := range []*syntax.Expr{&e.Lo, &e.Hi, &e.Step} {
			if *bound != nil {
				*bound = r.expression(*bound)
			}
		}
		return guarded(guardResult, e.Lbrack, e)
	case *syntax.IndexExpr:
		e.X, e.Y = r.expression(e.X), r.expression(e.Y)
	}
	return e
}

// argument rewrites the value of a named or starred argument.
func (r *rewriter) argument(arg syntax.Expr) {
	switch a := arg.(type) {
	case *syntax.BinaryExpr:
		if a.Op == syntax.EQ {
			a.Y = r.expression(a.Y)
		}
	case *syntax.UnaryExpr:
		if a.Op == syntax.STAR || a.Op == syntax.STARSTAR {
			a.X = r.expression(a.X)
		}
	}
}

func guarded(name string, at syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return &syntax.CallExpr{Fn: &syntax.Ident{NamePos: at, Name: name}, Lparen: at, Args: args, Rparen: at}
}

func text(at syntax.Position, value string) *syntax.Literal {
	return &syntax.Literal{Token: syntax.STRING, TokenPos: at, Raw: `"` + value + `"`, Value: value}
}

func unparenthesized(e syntax.Expr) syntax.Expr {
	for {
		p, ok := e.(*syntax.ParenExpr)
		if !ok {
			return e
		}
		e = p.X
	}
}

func hasCall(e syntax.Expr) bool {
	found := false
	syntax.Walk(e, func(n syntax.Node) bool {
		if _, ok := n.(*syntax.CallExpr); ok {
			found = true
		}
		return !found
	})
	return found
}

// copied returns an expression of names, literals, attributes and elements anew, because the resolver
// writes into each.
func copied(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.Ident:
		return &syntax.Ident{NamePos: e.NamePos, Name: e.Name}
	case *syntax.ParenExpr:
		return copied(e.X)
	case *syntax.IndexExpr:
		return &syntax.IndexExpr{X: copied(e.X), Lbrack: e.Lbrack, Y: copied(e.Y), Rbrack: e.Rbrack}
	}
	return e
}

// hasUncopied says whether copied shares a part with the original that the resolver writes into.
func hasUncopied(e syntax.Expr) bool {
	switch e := e.(type) {
	case *syntax.Ident, *syntax.Literal:
		return false
	case *syntax.ParenExpr:
		return hasUncopied(e.X)
	case *syntax.IndexExpr:
		return hasUncopied(e.X) || hasUncopied(e.Y)
	}
	return true
}
