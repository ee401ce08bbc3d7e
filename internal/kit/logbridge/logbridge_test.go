package logbridge_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/skiff-containers/skiff/internal/kit/logbridge"
)

func TestRedirect(t *testing.T) {
	var b bytes.Buffer
	logbridge.Redirect(slog.New(slog.NewTextHandler(&b, nil)))
	logrus.WithError(errors.New("boom")).WithField("k", 1).Warn("trouble")
	logrus.Info("chatter")
	logrus.Warn("failed check for fsverity support")
	if s := b.String(); !strings.Contains(s, "level=WARN msg=trouble") || !strings.Contains(s, "error=boom") || strings.Contains(s, "chatter") || strings.Contains(s, "fsverity") {
		t.Errorf("got %s", s)
	}
}
