package build

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"github.com/sirupsen/logrus"
)

// redirectLogs sends what BuildKit and containerd's libraries say through
// their process-wide logger to ours. They are talkative: a failed fetch that is
// tried again is an error to them, so everything counts one level less.
func redirectLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	for _, hs := range std.Hooks {
		if slices.ContainsFunc(hs, func(h logrus.Hook) bool { _, ok := h.(*slogHook); return ok }) {
			return
		}
	}
	std.AddHook(&slogHook{log.With("from", "buildkit")})
	std.SetOutput(io.Discard)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		std.SetLevel(logrus.InfoLevel)
	} else {
		std.SetLevel(logrus.WarnLevel)
	}
}

type slogHook struct{ log *slog.Logger }

// Levels implements logrus.Hook.
func (*slogHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h *slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch e.Level {
	case logrus.PanicLevel, logrus.FatalLevel:
		level = slog.LevelError
	case logrus.ErrorLevel:
		level = slog.LevelWarn
	case logrus.WarnLevel, logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel:
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	if !h.log.Enabled(ctx, level) {
		return nil
	}
	attrs := make([]any, 0, 2*len(e.Data))
	for k, v := range e.Data {
		if k != "span" {
			attrs = append(attrs, k, v)
		}
	}
	h.log.Log(ctx, level, e.Message, attrs...)
	return nil
}
