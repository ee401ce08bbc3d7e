// Command skiff is Skiff's command line.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/moby/term"

	"github.com/skiff-containers/skiff/internal/cli"
)

func main() {
	// Most commands are over before they have used four megabytes, which is when
	// a first collection would start.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	in, out, err := term.StdStreams()
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: in, Out: out, Err: err}))
}
