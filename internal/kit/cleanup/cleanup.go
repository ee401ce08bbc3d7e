// Package cleanup undoes the finished steps of a verb that failed half way.
//
//	var undo cleanup.Stack
//	defer undo.Run()
//	... each step: undo.Push(func() { ... })
//	undo.Release() // success: keep everything
package cleanup

// Stack holds undo steps; the zero value is empty. Not for concurrent use.
type Stack struct{ steps []func() }

// Push adds a step, run before those pushed earlier.
func (s *Stack) Push(f func()) { s.steps = append(s.steps, f) }

// Run runs the steps, last pushed first, and empties the stack.
func (s *Stack) Run() {
	for i := len(s.steps) - 1; i >= 0; i-- {
		s.steps[i]()
	}
	s.steps = nil
}

// Release forgets the steps: what was done stays done.
func (s *Stack) Release() { s.steps = nil }
