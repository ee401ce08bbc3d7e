// Command skiff-build is the helper of "skiff build" for flags that need a
// conversation with the builder (--secret, --ssh, --output, --progress…).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/skiff-containers/skiff/internal/cli/buildsession"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := buildsession.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
