// Package buildsession is the part of "build" that converses with the builder:
// secrets, SSH agents, further contexts, results that come back as files. It
// has a BuildKit client inside and therefore is a program of its own,
// skiff-build, which skiff runs when a flag asks for it.
package buildsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	bkclient "github.com/moby/buildkit/client"
	solvererrs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/authfile"
	"github.com/skiff-containers/skiff/internal/cli/buildopts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

// Run executes "build" with the arguments that follow the verb, and returns
// the exit code. The daemon's address and the configuration's directory come
// from the environment.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	var f buildopts.Flags
	fs := pflag.NewFlagSet("skiff build", pflag.ContinueOnError)
	fs.SetOutput(errOut)
	f.Register(fs)
	err := fs.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(errOut, err)
		return 125
	case fs.NArg() != 1:
		_, _ = fmt.Fprintln(errOut, "skiff: 'skiff build' requires 1 argument")
		return 1
	}
	b := &builder{flags: &f, spec: fs.Arg(0), in: in, out: out, err: errOut}
	if err := b.run(ctx); err != nil {
		for _, s := range solvererrs.Sources(err) {
			_ = s.Print(errOut)
		}
		_, _ = fmt.Fprintf(errOut, "skiff: %v\n", err)
		return 1
	}
	return 0
}

type builder struct {
	flags    *buildopts.Flags
	spec     string
	in       io.Reader
	out, err io.Writer
	cleanup  []func()
}

func (b *builder) run(ctx context.Context) error {
	defer func() {
		for _, f := range b.cleanup {
			f()
		}
	}()
	cl, err := client.New(client.WithUserAgent("skiff-build"))
	if err != nil {
		return err
	}
	defer func() { _ = cl.Close() }()
	conf, err := authfile.Load(authfile.Dir())
	if err != nil {
		return err
	}
	opt, err := b.solveOpt(conf, cl.Host())
	if err != nil {
		return err
	}
	bk, err := dial(ctx, cl)
	if err != nil {
		return err
	}
	defer func() { _ = bk.Close() }()
	res, err := b.solve(ctx, bk, opt)
	if err != nil {
		return err
	}
	if err := b.report(res); err != nil {
		return err
	}
	if b.flags.Session.Push {
		return b.push(ctx, cl, conf)
	}
	return nil
}

// dial reaches BuildKit's services through the daemon's API.
func dial(ctx context.Context, cl *client.Client) (*bkclient.Client, error) {
	return bkclient.New(ctx, "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return cl.Upgrade(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return cl.Upgrade(ctx, "/session", proto, meta)
		}))
}

func (b *builder) solve(ctx context.Context, bk *bkclient.Client, opt *bkclient.SolveOpt) (*bkclient.SolveResponse, error) {
	mode := progressui.DisplayMode(b.flags.Session.Progress)
	if b.flags.Quiet {
		mode = progressui.QuietMode
	}
	display, err := progressui.NewDisplay(b.err, mode)
	if err != nil {
		return nil, err
	}
	var res *bkclient.SolveResponse
	status := make(chan *bkclient.SolveStatus)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		var err error
		res, err = bk.Solve(gctx, nil, *opt, status)
		return err
	})
	g.Go(func() error {
		// Progress is shown to its end even if the build has failed.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), status)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return res, nil
}

// report tells what was made, in the ways that flags ask for.
func (b *builder) report(res *bkclient.SolveResponse) error {
	id := res.ExporterResponse["containerimage.config.digest"]
	if id == "" {
		id = res.ExporterResponse["containerimage.digest"]
	}
	if b.flags.Quiet && id != "" {
		if _, err := fmt.Fprintln(b.out, id); err != nil {
			return err
		}
	}
	if p := b.flags.IIDFile; p != "" {
		if id == "" {
			return fmt.Errorf("the build made no image: cannot write %s", p)
		}
		if err := os.WriteFile(p, []byte(id), 0o666); err != nil { //nolint:gosec // as the umask says
			return err
		}
	}
	if p := b.flags.Session.MetadataFile; p != "" {
		return writeMetadata(p, res.ExporterResponse)
	}
	return nil
}

// push uploads every tag, as "skiff push" does.
func (b *builder) push(ctx context.Context, cl *client.Client, conf *authfile.File) error {
	if len(b.flags.Tags.Values) == 0 {
		return errors.New("--push needs a name: give one with --tag")
	}
	for _, t := range b.flags.Tags.Values {
		ref, err := imageref.Parse(t)
		if err != nil {
			return err
		}
		server := ref.Domain
		if server == "docker.io" {
			server = authfile.IndexServer
		}
		auth, err := conf.Get(server)
		if err != nil {
			return err
		}
		header, err := authconfig.Encode(auth)
		if err != nil {
			return err
		}
		body, err := cl.ImagePush(ctx, ref.Tagged().FamiliarString(), client.ImagePushOptions{Auth: header})
		if err != nil {
			return err
		}
		out := b.err
		if b.flags.Quiet {
			out = io.Discard
		}
		err = jsonmessage.DisplayStream(body, out)
		_ = body.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// names are the tags, complete, as the exporter wants them.
func names(tags []string) (string, error) {
	var out []string
	for _, t := range tags {
		ref, err := imageref.Parse(t)
		if err != nil {
			return "", fmt.Errorf("invalid tag %q: %w", t, err)
		}
		out = append(out, ref.Tagged().String())
	}
	return strings.Join(out, ","), nil
}
