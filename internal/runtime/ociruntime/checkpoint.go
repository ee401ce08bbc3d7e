//go:build linux

package ociruntime

import (
	"context"
	"flag"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (a *app) checkpoint(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error {
		return errs.New(errs.Unsupported, "checkpoint is not supported")
	}
}

func (a *app) restore(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error { return errs.New(errs.Unsupported, "restore is not supported") }
}
