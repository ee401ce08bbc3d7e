//go:build linux

package ociruntime

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// newLogger writes lines as engines expect them of a runtime: "level", "msg"
// and "time", as text or as JSON.
func newLogger(w io.Writer, format string, debug bool) *slog.Logger {
	o := &slog.HandlerOptions{ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		switch at.Key {
		case slog.LevelKey:
			l := strings.ToLower(at.Value.String())
			if l == "warn" {
				l = "warning"
			}
			return slog.String("level", l)
		case slog.TimeKey:
			return slog.String("time", at.Value.Time().Format(time.RFC3339))
		}
		return at
	}}
	if debug {
		o.Level = slog.LevelDebug
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func (a *app) openLog(path, format string) error {
	switch format {
	case "", "text", "json":
	default:
		return fmt.Errorf("invalid log-format: %s", format)
	}
	w := a.err
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		w, a.logFile = f, path != "/dev/stderr"
	}
	a.log = newLogger(w, format, a.debug)
	return nil
}
