// Package logbridge brings what linked libraries (containerd, BuildKit,
// distribution) write to logrus's global logger into slog.
package logbridge

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// Redirect sends the global logrus logger's entries to log and nowhere else.
// It changes process-wide state: call it once, first thing in main. Levels
// that log does not want are dropped before they are formatted.
func Redirect(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetFormatter(nothing{})
	std.SetLevel(lowest(log))
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(&hook{log})
}

// nothing formats nothing: the hook has the entry already.
type nothing struct{}

func (nothing) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

// noisy are messages about what is normal, by their text.
var noisy = map[string]bool{
	"failed check for fsverity support": true, // most file systems have none
}

type hook struct{ log *slog.Logger }

func (h *hook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *hook) Fire(e *logrus.Entry) error {
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	level := slogLevel(e.Level)
	if noisy[e.Message] {
		level = slog.LevelDebug
	}
	if !h.log.Enabled(ctx, level) {
		return nil
	}
	attrs := make([]slog.Attr, 0, len(e.Data))
	for k, v := range e.Data {
		attrs = append(attrs, slog.Any(k, v))
	}
	h.log.LogAttrs(ctx, level, e.Message, attrs...)
	return nil
}

// slogLevel takes a library's "info" as debug: an operator did not ask how a
// library works.
func slogLevel(l logrus.Level) slog.Level {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		return slog.LevelError
	case logrus.WarnLevel:
		return slog.LevelWarn
	case logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel:
		return slog.LevelDebug
	}
	return slog.LevelDebug
}

func lowest(log *slog.Logger) logrus.Level {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return logrus.DebugLevel
	}
	return logrus.WarnLevel
}
