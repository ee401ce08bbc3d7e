package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/runopts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

type createOptions struct {
	flags    runopts.Flags
	name     string
	platform string
	pull     string
	quiet    bool
}

func newCreate(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:         "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:       "Create a new container",
		Args:        minArgs(1),
		Annotations: map[string]string{namesKey: "container create, create"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return runError(cmd, a, func() error {
				d, err := a.document(cmd, &o, args)
				if err != nil {
					return err
				}
				cl, err := a.client(ctx)
				if err != nil {
					return err
				}
				id, err := a.create(ctx, cl, d, &o)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, id)
				return nil
			}())
		},
		ValidArgsFunction: a.firstThenFiles(a.completeImages),
	}
	cmd.Flags().SetInterspersed(false)
	o.register(cmd)
	return cmd
}

func (o *createOptions) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	noShortHelp(fs)
	o.flags.Register(fs)
	fs.StringVar(&o.name, "name", "", "Name of the container")
	fs.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image (os/arch[/variant])")
	fs.StringVar(&o.pull, "pull", "missing", "When to pull the image: always, missing or never")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Do not show the pull's progress")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkHidden("disable-content-trust")
}

// attached are the streams that -a named.
func (o *createOptions) attached(cmd *cobra.Command) []string {
	if !cmd.Flags().Changed("attach") {
		return nil
	}
	return []string{cmd.Flags().Lookup("attach").Value.String()}
}

// document makes the container's document of the command line.
func (a *app) document(cmd *cobra.Command, o *createOptions, args []string) (*runopts.Document, error) {
	d, err := o.flags.Parse(cmd.Flags(), args[0], args[1:])
	if err != nil {
		return nil, err
	}
	switch o.pull {
	case "always", "missing", "never":
	default:
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", o.pull)
	}
	conf, err := a.config()
	if err != nil {
		return nil, err
	}
	d.Config.Env = withProxies(conf.Proxy(a.host()), d.Config.Env)
	return d, nil
}

// withProxies puts the configuration's proxy variables before those that were
// asked for, so that the latter win.
func withProxies(proxies map[string]string, env []string) []string {
	var out []string
	for _, k := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "FTP_PROXY", "ftp_proxy", "ALL_PROXY", "all_proxy"} {
		if v, ok := proxies[k]; ok {
			out = append(out, k+"="+v)
		}
	}
	return append(out, env...)
}

// create creates the container, pulling its image as --pull says.
func (a *app) create(ctx context.Context, cl *client.Client, d *runopts.Document, o *createOptions) (id string, err error) {
	cid, err := openIDFile(o.flags.ContainerIDFile())
	if err != nil {
		return "", err
	}
	defer func() { cid.finish(id) }()
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return "", err
	}
	byID := imageref.IsID(d.Config.Image)
	ref, err := imageref.Parse(d.Config.Image)
	if err != nil && !byID {
		return "", err
	}
	ref = ref.Tagged()
	pull := func() error {
		if byID {
			return fmt.Errorf("image %s is not known by name and cannot be pulled", d.Config.Image)
		}
		return a.pull(ctx, cl, ref, pullOptions{platform: platform, quiet: o.quiet, out: a.err})
	}
	if o.pull == "always" {
		if err := pull(); err != nil {
			return "", err
		}
	}
	request := client.ContainerCreateOptions{
		Config: d.Config, HostConfig: d.Host, NetworkingConfig: d.Networking, Name: o.name, Platform: platform,
	}
	// What has begun is waited for: nobody would know of the container.
	res, err := cl.ContainerCreate(context.WithoutCancel(ctx), request)
	if err != nil && errdefs.IsNotFound(err) && o.pull == "missing" &&
		(platform != nil || missingImage(ctx, cl, d.Config.Image)) {
		if !byID {
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", ref.FamiliarString())
			if err := pull(); err != nil {
				return "", err
			}
			res, err = cl.ContainerCreate(context.WithoutCancel(ctx), request)
		}
	}
	if err != nil {
		return "", err
	}
	for _, w := range res.Warnings {
		fmt.Fprintln(a.err, "WARNING:", w)
	}
	return res.ID, nil
}

// missingImage tells "no such image" from other things that are not found, as a
// network or a container of --volumes-from.
func missingImage(ctx context.Context, cl *client.Client, ref string) bool {
	_, err := cl.ImageInspect(ctx, ref, nil)
	return errdefs.IsNotFound(err)
}

// idFile is --cidfile. It is made before the container, so that a taken name
// fails early, and removed again if there will be none.
type idFile struct {
	path string
	file *os.File
}

func openIDFile(path string) (*idFile, error) {
	if path == "" {
		return &idFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &idFile{path, f}, nil
}

func (f *idFile) finish(id string) {
	if f.file == nil {
		return
	}
	_, err := f.file.WriteString(id)
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	if id == "" || err != nil {
		_ = os.Remove(f.path)
	}
}
