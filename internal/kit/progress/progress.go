// Package progress carries what a long verb (pull, push, load, build) reports
// while it works, from the engine to whichever door shows it.
package progress

// Event is one report. Its fields mirror docker's JSON stream; zero fields are
// left out.
type Event struct {
	ID      string // layer or object the report is about; "" for the whole
	Status  string // "Downloading", "Pull complete", …
	Stream  string // raw text of a build
	Current int64  // bytes done
	Total   int64  // bytes in all; 0 if not known
	Aux     any    // a JSON value for programs ({"ID": …} of a build)
}

// Sink takes events; it must be safe for concurrent use and must not block for
// long. A nil Sink must not be passed: use [Discard].
type Sink interface{ Emit(Event) }

// Func adapts a function to [Sink].
type Func func(Event)

// Emit calls f.
func (f Func) Emit(e Event) { f(e) }

// Discard drops every event.
var Discard Sink = Func(func(Event) {})
