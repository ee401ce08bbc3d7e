package builds

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// StepError is the failure of a step's command. ExitCode is what docker's
// clients exit with.
type StepError struct {
	Command string
	Code    int
	err     error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("The command '%s' returned a non-zero code: %d", e.Command, e.Code)
}

// ExitCode returns the command's.
func (e *StepError) ExitCode() int { return e.Code }

func (e *StepError) Unwrap() error { return e.err }

// process matches how BuildKit names the command that failed.
var process = regexp.MustCompile(`process ("(?:[^"\\]|\\.)*") did not complete successfully`)

// parseError is how the Dockerfile's parser begins, wherever it was called from.
const parseError = "dockerfile parse error"

// missing matches how BuildKit says that COPY's source is not in the context.
var missing = regexp.MustCompile(`failed to calculate checksum of ref \S+: "/?(.*)": not found`)

// explain puts a build's failure into the words docker's clients know.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errs.With(errs.Canceled, context.Cause(ctx))
	}
	text := err.Error()
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) {
		if m := process.FindStringSubmatch(text); m != nil {
			if command, uerr := strconv.Unquote(m[1]); uerr == nil {
				return &StepError{Command: command, Code: int(exit.ExitCode), err: err}
			}
		}
		return err
	}
	if i := strings.Index(text, parseError); i >= 0 {
		return errs.New(errs.Invalid, text[i:])
	}
	if m := missing.FindStringSubmatch(text); m != nil {
		return errs.Newf(errs.Invalid, "COPY failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", m[1])
	}
	if line := lineOf(err); line > 0 {
		return errs.Newf(errs.KindOf(err), "dockerfile line %d: %w", line, err)
	}
	return err
}

// lineOf finds where in the Dockerfile an error comes from; 0 if nowhere.
func lineOf(err error) int {
	for _, s := range errdefs.Sources(err) {
		if s.Info == nil || s.Info.Filename == "" {
			continue
		}
		for _, r := range s.Ranges {
			if r.Start != nil && r.Start.Line > 0 {
				return int(r.Start.Line)
			}
		}
	}
	return 0
}
