package build

import (
	"context"
	"io"
	"log/slog"

	"github.com/moby/buildkit/util/bklog"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
)

// newEntry returns a logger for contexts of BuildKit that writes to ours. Its
// libraries are talkative: a failed fetch that is tried again is an error to
// them, so everything counts one level less.
func newEntry(log *slog.Logger) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.AddHook(&slogHook{log})
	l.SetLevel(logrus.WarnLevel)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		l.SetLevel(logrus.InfoLevel)
	}
	return logrus.NewEntry(l)
}

// logUnary and logStream give calls of the API that logger.
func logUnary(e *logrus.Entry) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		return h(bklog.WithLogger(ctx, e), req)
	}
}

func logStream(e *logrus.Entry) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(srv, &loggedStream{ss, bklog.WithLogger(ss.Context(), e)})
	}
}

type loggedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *loggedStream) Context() context.Context { return s.ctx }

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
