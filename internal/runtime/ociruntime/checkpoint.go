//go:build linux

package ociruntime

import (
	"context"
	"flag"
	"net"
	"path/filepath"
	"strconv"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/ociruntime/swrk"
)

// An annotation may name a configuration file of criu's own.
const criuConfig = "org.criu.config"

// criuFlags are those that checkpoint and restore share.
func criuFlags(fs *flag.FlagSet, o *swrk.Options) *[]string {
	var empty []string
	fs.StringVar(&o.Images, "image-path", "checkpoint", "directory of the saved state")
	fs.StringVar(&o.Work, "work-path", "", "directory of criu's logs")
	fs.BoolVar(&o.TCPEstablished, "tcp-established", false, "also with open TCP connections")
	fs.BoolVar(&o.ExternalSockets, "ext-unix-sk", false, "also with unix sockets that lead outside")
	fs.BoolVar(&o.ShellJob, "shell-job", false, "also at a terminal of the outside")
	fs.BoolVar(&o.FileLocks, "file-locks", false, "also with file locks")
	fs.BoolVar(&o.AutoDedup, "auto-dedup", false, "keep memory once that is in several images")
	fs.BoolVar(&o.LazyPages, "lazy-pages", false, "let memory follow when it is used")
	fs.StringVar(&o.Cgroups, "manage-cgroups-mode", "", "what becomes of control groups: soft (default), full, strict or ignore")
	listFlag(fs, &empty, "empty-ns", "", "namespace that comes back empty: network, which always does")
	return &empty
}

func checkCriu(o *swrk.Options, empty []string) (err error) {
	for _, n := range empty {
		if n != "network" {
			return errs.Newf(errs.Unsupported, "namespace %q is not supported", n)
		}
	}
	if err := swrk.CheckCgroups(o.Cgroups); err != nil {
		return err
	}
	if o.Images, err = filepath.Abs(o.Images); err != nil {
		return err
	}
	return swrk.Check(o.Program)
}

func (a *app) checkpoint(fs *flag.FlagSet) func(context.Context, []string) error {
	d := swrk.Dump{StatusFD: -1}
	var server string
	empty := criuFlags(fs, &d.Options)
	fs.StringVar(&d.Parent, "parent-path", "", "an earlier pre-dump, relative to --image-path")
	fs.BoolVar(&d.LeaveRunning, "leave-running", false, "let the container go on")
	fs.BoolVar(&d.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are being made")
	fs.BoolVar(&d.LinkRemap, "link-remap", false, "link deleted files back where that can be")
	fs.IntVar(&d.StatusFD, "status-fd", -1, "descriptor told when lazy pages can be fetched")
	fs.StringVar(&server, "page-server", "", "ADDRESS:PORT that takes the memory")
	fs.BoolVar(&d.PreDump, "pre-dump", false, "save memory only, and let the container go on")
	return func(ctx context.Context, args []string) error {
		if err := pageServer(&d, server); err != nil {
			return err
		}
		if filepath.IsAbs(d.Parent) {
			return errs.New(errs.Invalid, "--parent-path must be relative")
		}
		c, err := a.loadLocked(args[0])
		if err != nil {
			return err
		}
		defer c.unlock()
		st, err := c.status()
		if err != nil {
			return err
		}
		if st != running && st != paused {
			return errs.Newf(errs.Conflict, "Container cannot be checkpointed in %s state", st)
		}
		if err := checkCriu(&d.Options, *empty); err != nil {
			return err
		}
		g, err := c.group()
		if err != nil {
			return err
		}
		d.PID, d.Spec, d.Rootfs, d.Freeze = c.PID, c.Spec, c.Rootfs, g.FreezerDir()
		d.Config = c.Spec.Annotations[criuConfig]
		if err := d.Save(); err != nil {
			return err
		}
		if d.LeaveRunning || d.PreDump {
			return nil
		}
		if err := c.killAndWait(); err != nil {
			return err
		}
		return a.destroy(ctx, c)
	}
}

func pageServer(d *swrk.Dump, text string) error {
	if text == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || port == "" {
		return errs.New(errs.Invalid, "Use --page-server ADDRESS:PORT to specify page server")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return errs.New(errs.Invalid, "Invalid port number")
	}
	d.PageServer, d.PagePort = host, int(n)
	return nil
}
