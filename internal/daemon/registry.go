package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/kit/logbridge"
	"github.com/skiff-containers/skiff/internal/registryd"
)

// registryMain is `skiffd registry serve`: the registry alone.
func registryMain(args []string, out, errOut io.Writer) int {
	if len(args) == 0 || args[0] != "serve" {
		_, _ = fmt.Fprintln(errOut, "Usage: skiffd registry serve [OPTIONS]")
		return 2
	}
	c := DefaultConfig()
	var o registryd.Options
	fs := pflag.NewFlagSet("skiffd registry serve", pflag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.StringVar(&o.Addr, "addr", "127.0.0.1:5000", "Address to serve on (host:port)")
	fs.StringVar(&o.Dir, "dir", "/var/lib/skiff/registry", "Directory of blobs and tags")
	fs.StringVar(&o.Htpasswd, "htpasswd", "", "File of user:bcrypt lines to authenticate with")
	fs.StringVar(&o.Cert, "tlscert", "", "TLS certificate")
	fs.StringVar(&o.Key, "tlskey", "", "TLS key")
	fs.BoolVar(&o.ReadOnly, "read-only", false, "Refuse pushes")
	fs.BoolVar(&o.NoDelete, "no-delete", false, "Refuse to delete manifests and blobs")
	fs.StringVarP(&c.LogLevel, "log-level", "l", c.LogLevel, `Set the logging level ("debug"|"info"|"warn"|"error")`)
	switch err := fs.Parse(args[1:]); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "skiffd registry serve: %v\n", err)
		return 2
	}
	log, _ := newLogger(c, errOut)
	logbridge.Redirect(log)
	o.Log = log
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv, err := registryd.New(o)
	if err == nil {
		_, _ = fmt.Fprintf(out, "serving %s on %s\n", o.Dir, srv.Addr())
		err = srv.Serve(ctx)
		err = errors.Join(err, srv.Close())
	}
	if err != nil {
		_, _ = fmt.Fprintf(errOut, "skiffd registry serve: %v\n", err)
		return 1
	}
	return 0
}
