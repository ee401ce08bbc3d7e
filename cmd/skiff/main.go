// Command skiff is Skiff's command line.
package main

import (
	"context"
	"os"

	"github.com/moby/term"

	"github.com/skiff-containers/skiff/internal/cli"
)

func main() {
	in, out, err := term.StdStreams()
	os.Exit(cli.Run(context.Background(), os.Args[1:], cli.Streams{In: in, Out: out, Err: err}))
}
