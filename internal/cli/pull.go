package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/client/pkg/jsonmessage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/authfile"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

type pullOptions struct {
	all, quiet bool
	platform   *ocispec.Platform
	out        io.Writer
}

func newPull(a *app) *cobra.Command {
	var o pullOptions
	var platform string
	cmd := &cobra.Command{
		Use:         "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short:       "Download an image from a registry",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "image pull, pull"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := imageref.Parse(args[0])
			switch {
			case err != nil:
				return err
			case o.all && !ref.NameOnly():
				return errors.New("tag can't be used with --all-tags/-a")
			case !o.all && ref.NameOnly():
				ref = ref.Tagged()
				if !o.quiet {
					fmt.Fprintf(a.out, "Using default tag: %s\n", ref.Tag)
				}
			}
			if o.platform, err = parsePlatform(platform); err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			o.out = a.out
			if err := a.pull(cmd.Context(), cl, ref, o); err != nil {
				return err
			}
			fmt.Fprintln(a.out, ref.String())
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all-tags", "a", false, "Download every tag of the repository")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image (os/arch[/variant])")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Do not show progress")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	_ = fs.MarkHidden("disable-content-trust")
	return cmd
}

// pull downloads an image and shows how it goes.
func (a *app) pull(ctx context.Context, cl *client.Client, ref imageref.Ref, o pullOptions) error {
	auth, err := a.registryAuth(ref)
	if err != nil {
		return err
	}
	body, err := cl.ImagePull(ctx, ref.FamiliarString(), client.ImagePullOptions{Auth: auth, All: o.all, Platform: o.platform})
	if err != nil {
		return err
	}
	defer body.Close()
	if o.quiet {
		return showProgress(body, io.Discard)
	}
	return showProgress(body, o.out)
}

// showProgress prints a JSON stream: bars on a terminal, lines elsewhere. An
// error in the stream is returned.
func showProgress(body io.Reader, out io.Writer, o ...jsonmessage.DisplayOpt) error {
	return jsonmessage.DisplayStream(body, out, o...)
}

// registryAuth is the header with the credentials for a reference's registry.
func (a *app) registryAuth(ref imageref.Ref) (string, error) {
	return a.serverAuth(registryOf(ref))
}

// registryOf is the key under which credentials of a reference's registry are
// kept.
func registryOf(ref imageref.Ref) string {
	if ref.Domain != "docker.io" {
		return ref.Domain
	}
	return authfile.IndexServer
}

func (a *app) serverAuth(server string) (string, error) {
	conf, err := a.config()
	if err != nil {
		return "", err
	}
	auth, err := conf.Get(server)
	if err != nil {
		// A broken helper must not stand in the way of what is public.
		a.warn(fmt.Errorf("WARNING: %w", err))
	}
	return authconfig.Encode(auth)
}
