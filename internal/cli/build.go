package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/buildctx"
	"github.com/skiff-containers/skiff/internal/cli/buildopts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

func newBuild(a *app) *cobra.Command {
	var f buildopts.Flags
	cmd := &cobra.Command{
		Use:         "build [OPTIONS] PATH | URL | -",
		Short:       "Build an image from a Dockerfile",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "builder build, image build, build"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.Session.Progress == "quiet" {
				f.Quiet = true
			}
			if os.Getenv("DOCKER_BUILDKIT") != "0" && f.NeedsSession(cmd.Flags()) {
				return a.buildWithSession(cmd)
			}
			return a.build(cmd.Context(), &f, args[0])
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	f.Register(cmd.Flags())
	return cmd
}

// buildHelper is the program with a BuildKit client inside.
const buildHelper = "skiff-build"

// buildWithSession hands over to the helper, with the same arguments.
func (a *app) buildWithSession(cmd *cobra.Command) error {
	path := ""
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		if p := filepath.Join(filepath.Dir(self), buildHelper); isExecutable(p) {
			path = p
		}
	}
	if path == "" {
		p, err := exec.LookPath(buildHelper)
		if err != nil {
			return fmt.Errorf("these flags need %s, which was not found beside this program or in PATH", buildHelper)
		}
		path = p
	}
	if _, err := a.client(cmd.Context()); err != nil { // starts the daemon if need be
		return err
	}
	args := os.Args
	for i, s := range args {
		if s == "build" {
			args = args[i+1:]
			break
		}
	}
	_ = os.Setenv(client.EnvHost, a.host())
	_ = os.Setenv("DOCKER_CONFIG", a.configDir())
	return replaceSelf(path, args)
}

func isExecutable(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

func (a *app) build(ctx context.Context, f *buildopts.Flags, spec string) error {
	req, err := a.buildRequest(f)
	if err != nil {
		return err
	}
	if f.IIDFile != "" {
		// An old id must not survive a failed build.
		if err := os.Remove(f.IIDFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing image ID file: %w", err)
		}
	}
	from, err := buildctx.Open(spec, f.File, a.in)
	if err != nil {
		return err
	}
	req.Dockerfile, req.RemoteContext = from.Dockerfile, from.Remote
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	var body io.Reader
	var sent *countingReader
	if from.Tar != nil {
		defer from.Tar.Close()
		in := from.Tar
		if f.Compress {
			in = buildctx.Compress(in)
		}
		sent = &countingReader{r: in}
		if _, tty := terminal(a.err); tty && !f.Quiet {
			sent.show = a.err
		}
		body = sent
	}
	r, err := cl.ImageBuild(ctx, body, req)
	if err != nil {
		if sent != nil {
			if sent.err != nil && !errors.Is(sent.err, io.EOF) {
				return fmt.Errorf("error while sending the build context: %w", sent.err)
			}
			sent.done()
		}
		return err
	}
	defer r.Close()
	sent.done()
	id, err := a.showBuild(r, f.Quiet)
	if err != nil {
		return err
	}
	if f.Quiet {
		fmt.Fprintln(a.out, id)
	}
	if f.IIDFile != "" {
		if id == "" {
			return fmt.Errorf("server did not provide an image ID. Cannot write %s", f.IIDFile)
		}
		return os.WriteFile(f.IIDFile, []byte(id), 0o666)
	}
	return nil
}

// showBuild prints the build's output, in the case of quiet only when it
// fails, and returns the image's id.
func (a *app) showBuild(body io.Reader, quiet bool) (id string, err error) {
	var kept bytes.Buffer
	out := a.out
	if quiet {
		out = &kept
	}
	err = showProgress(body, out, jsonmessage.WithAuxCallback(func(m jsonstream.Message) {
		var r build.Result
		if m.Aux != nil && json.Unmarshal(*m.Aux, &r) == nil && r.ID != "" {
			id = r.ID
		}
	}))
	if err != nil {
		if quiet {
			_, _ = io.Copy(a.err, &kept)
		}
		return "", buildError(err)
	}
	if id == "" && quiet {
		id = strings.TrimSpace(kept.String())
	}
	return id, nil
}

// buildError keeps the code that a RUN ended with.
func buildError(err error) error {
	var je *jsonstream.Error
	if errors.As(err, &je) {
		code := je.Code
		if code == 0 || code > 255 {
			code = 1
		}
		return &statusError{code, je.Message}
	}
	return err
}

func (a *app) buildRequest(f *buildopts.Flags) (client.ImageBuildOptions, error) {
	conf, err := a.config()
	if err != nil {
		return client.ImageBuildOptions{}, err
	}
	for _, t := range f.Tags.Values {
		if _, err := imageref.Parse(t); err != nil {
			return client.ImageBuildOptions{}, &statusError{125, fmt.Sprintf("invalid argument %q for \"-t, --tag\" flag: %s", t, err)}
		}
	}
	platforms, err := parsePlatforms(f.Platforms)
	if err != nil {
		return client.ImageBuildOptions{}, err
	}
	return client.ImageBuildOptions{
		Version: build.BuilderV1,
		Tags:    f.Tags.Values, SuppressOutput: f.Quiet, NoCache: f.NoCache, PullParent: f.Pull,
		Remove: f.Remove, ForceRemove: f.ForceRemove, Squash: f.Squash,
		Isolation: container.Isolation(f.Isolation), SecurityOpt: f.SecurityOpt,
		CPUSetCPUs: f.CPUSetCPUs, CPUSetMems: f.CPUSetMems,
		CPUShares: f.CPUShares, CPUPeriod: f.CPUPeriod, CPUQuota: f.CPUQuota,
		Memory: int64(f.Memory), MemorySwap: int64(f.MemorySwap), ShmSize: int64(f.ShmSize),
		CgroupParent: f.CgroupParent, NetworkMode: f.Network, Ulimits: f.Ulimits.Sorted(),
		BuildArgs: buildArgs(conf.Proxy(a.host()), f.BuildArgs.Values), Labels: f.Labels.Pairs(),
		CacheFrom: f.CacheFrom, ExtraHosts: f.AddHosts.Values, Target: f.Target, Platforms: platforms,
		AuthConfigs: conf.All(),
	}, nil
}

// buildArgs puts the configuration's proxies before what was asked for. A
// variable without a value is passed as null: the Dockerfile's default counts.
func buildArgs(proxies map[string]string, args []string) map[string]*string {
	out := map[string]*string{}
	for k, v := range proxies {
		out[k] = &v
	}
	for _, s := range args {
		k, v, has := strings.Cut(s, "=")
		if has {
			out[k] = &v
		} else {
			out[k] = nil
		}
	}
	return out
}

// countingReader notes how much of the context was sent.
type countingReader struct {
	r    io.Reader
	n    int64
	last int64
	err  error
	show io.Writer
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	if c.show != nil && (c.n-c.last > 512<<10 || errors.Is(err, io.EOF)) {
		c.last = c.n
		fmt.Fprintf(c.show, "\rSending build context to the Skiff daemon  %s", units.HumanSize(float64(c.n)))
	}
	return n, err
}

func (c *countingReader) done() {
	if c != nil && c.show != nil && c.n > 0 {
		fmt.Fprintln(c.show)
		c.show = nil
	}
}
