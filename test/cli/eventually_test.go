//go:build root

package cli

import (
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// eventually repeats a command until it succeeds, and prints what a pattern
// matches: eventually PATTERN COMMAND [ARG...]. It gives up after 20 seconds.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND [ARG...]")
	}
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if err == nil && re.MatchString(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within 20 s; the last: %v\n%s", err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
