package builds

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// TestClassicGolden plays the reports of a build whose stages run at once.
func TestClassicGolden(t *testing.T) {
	now := timestamppb.New(time.Unix(1, 0))
	vertex := func(d, name string, started, cached, done bool) *controlapi.Vertex {
		v := &controlapi.Vertex{Digest: d, Name: name, Cached: cached}
		if started {
			v.Started = now
		}
		if done {
			v.Completed = now
		}
		return v
	}
	var out strings.Builder
	c := newClassic(progress.Func(func(e progress.Event) {
		switch {
		case e.Stream != "":
			out.WriteString(e.Stream)
		default:
			fmt.Fprintf(&out, "{%s %s %d/%d %v}\n", e.ID, e.Status, e.Current, e.Total, e.Aux)
		}
	}))
	layer := "sha256:0123456789abcdef"
	for _, r := range []*controlapi.StatusResponse{
		{Vertexes: []*controlapi.Vertex{vertex("i", "[internal] load build definition from Dockerfile", true, false, true)}},
		{Vertexes: []*controlapi.Vertex{
			vertex("f", "[build 1/3] FROM docker.io/library/alpine:3@sha256:"+strings.Repeat("a", 64), false, false, false),
			vertex("m", "[build 2/3] RUN make", false, false, false),
			vertex("c", "[stage-1  1/12] COPY --from=build /x /x", false, false, false),
			vertex("k", "[build 3/3] RUN kept", false, false, false),
		}},
		{
			Vertexes: []*controlapi.Vertex{vertex("f", "[build 1/3] FROM docker.io/library/alpine:3@sha256:"+strings.Repeat("a", 64), true, false, false)},
			Statuses: []*controlapi.VertexStatus{{ID: layer, Vertex: "f", Current: 5, Total: 10}},
		},
		{Statuses: []*controlapi.VertexStatus{
			{ID: layer, Vertex: "f", Current: 10, Total: 10, Completed: now},
			{ID: layer, Vertex: "f", Completed: now},
			{ID: "extracting " + layer, Vertex: "f"},
			{ID: "extracting " + layer, Vertex: "f", Completed: now},
		}},
		{Logs: []*controlapi.VertexLog{{Vertex: "m", Msg: []byte("cc -o x\n")}}},
		{Vertexes: []*controlapi.Vertex{vertex("m", "[build 2/3] RUN make", true, false, true), vertex("k", "[build 3/3] RUN kept", true, true, true)}},
		{Warnings: []*controlapi.VertexWarning{
			{Short: []byte("FromAsCasing: casing differs"), Ranges: []*pb.Range{{Start: &pb.Position{Line: 2}}}},
			{Short: []byte("FromAsCasing: casing differs"), Ranges: []*pb.Range{{Start: &pb.Position{Line: 2}}}},
		}},
		{Vertexes: []*controlapi.Vertex{vertex("c", "[stage-1  1/12] COPY --from=build /x /x", true, false, true)}},
	} {
		c.report(r)
	}
	c.finish("sha256:fedcba9876543210", []string{"x:1"})
	golden(t, "classic.golden", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", p, got, want)
	}
}

func TestExplain(t *testing.T) {
	exit := fmt.Errorf("process %q did not complete successfully: %w", `/bin/sh -c echo "a b" && false`, &gatewayapi.ExitError{ExitCode: 3})
	for name, tc := range map[string]struct {
		err  error
		want string
		kind errs.Kind
	}{
		"command":     {exit, `The command '/bin/sh -c echo "a b" && false' returned a non-zero code: 3`, errs.Internal},
		"parse error": {errors.New("failed to solve: dockerfile parse error on line 2: x"), "dockerfile parse error on line 2: x", errs.Invalid},
		"missing": {
			errors.New(`failed to compute cache key: failed to calculate checksum of ref abc::def: "/a b": not found`),
			"COPY failed: file not found in build context or excluded by .dockerignore: stat a b: file does not exist", errs.Invalid,
		},
		"other": {errors.New("boom"), "boom", errs.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			got := explain(t.Context(), tc.err)
			if got.Error() != tc.want || errs.KindOf(got) != tc.kind {
				t.Errorf("got %q (%v)", got, errs.KindOf(got))
			}
		})
	}
	var step *StepError
	if !errors.As(explain(t.Context(), exit), &step) || step.ExitCode() != 3 {
		t.Error("no exit code")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCancelled)
	if err := explain(ctx, exit); errs.KindOf(err) != errs.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}
