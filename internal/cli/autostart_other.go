//go:build !linux

package cli

import (
	"context"
	"errors"
)

func mayAutostart() bool { return false }

func startDaemon(context.Context, string, string) error {
	return errors.New("skiffd runs on Linux only")
}
