package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
)

// getter fetches one object by name.
type getter func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error)

func newInspect(a *app) *cobra.Command {
	var layout, kind string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on objects",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("type") && kind == "" {
				return errors.New(`type is empty: must be one of "container", "image", "network", "volume"`)
			}
			get, err := inspectAny(kind, size)
			if err != nil {
				return err
			}
			return a.inspect(cmd.Context(), args, layout, get)
		},
		ValidArgsFunction: a.completeContainers(),
	}
	fs := cmd.Flags()
	fs.StringVarP(&layout, "format", "f", "", inspectFormatHelp)
	fs.BoolVarP(&size, "size", "s", false, "Show sizes of containers")
	fs.StringVar(&kind, "type", "", "Only objects of this type: container, image, network, volume")
	return cmd
}

const inspectFormatHelp = "Format of the output: 'json' or a Go 'TEMPLATE'"

// newInspectOf makes a group's own inspect.
func newInspectOf(a *app, noun, short string, get func(size bool) getter, sized bool, complete completer) *cobra.Command {
	var layout string
	var size bool
	cmd := &cobra.Command{
		Use:   fmt.Sprintf("inspect [OPTIONS] %s [%s...]", noun, noun),
		Short: short,
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), args, layout, get(size))
		},
		ValidArgsFunction: complete,
	}
	cmd.Flags().StringVarP(&layout, "format", "f", "", inspectFormatHelp)
	if sized {
		cmd.Flags().BoolVarP(&size, "size", "s", false, "Show total file sizes")
	}
	return cmd
}

// inspect prints what it finds and then what it did not.
func (a *app) inspect(ctx context.Context, names []string, layout string, get getter) error {
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	var found []format.Inspected
	var failed []string
	for _, n := range names {
		o, err := get(ctx, cl, n)
		if err != nil {
			failed = append(failed, a.explain(err))
			continue
		}
		found = append(found, o)
	}
	if err := format.Inspect(a.out, layout, found); err != nil {
		return &statusError{1, err.Error()}
	}
	return textError(failed)
}

func inspectContainer(size bool) getter {
	return func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error) {
		r, raw, err := cl.ContainerInspect(ctx, name, size)
		return format.Inspected{Value: r, Raw: raw}, err
	}
}

func newImageInspect(a *app) *cobra.Command {
	var layout, platform string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short: "Display detailed information on one or more images",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			return a.inspect(cmd.Context(), args, layout, inspectImage(p))
		},
		ValidArgsFunction: a.completeImages,
	}
	cmd.Flags().StringVarP(&layout, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect the image of this platform (os[/arch[/variant]])")
	return cmd
}

// inspected reads a document for templates.
func inspected[T any](raw json.RawMessage, err error) (format.Inspected, error) {
	var v T
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return format.Inspected{Value: v, Raw: raw}, err
}

func inspectImage(p *ocispec.Platform) getter {
	return func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error) {
		return inspected[image.InspectResponse](cl.ImageInspect(ctx, name, p))
	}
}

func inspectNetwork(verbose bool) getter {
	return func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error) {
		return inspected[network.Inspect](cl.NetworkInspect(ctx, name, verbose))
	}
}

func inspectVolume(bool) getter {
	return func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error) {
		return inspected[volume.Volume](cl.VolumeInspect(ctx, name))
	}
}

// inspectAny tries the kinds in docker's order.
func inspectAny(kind string, size bool) (getter, error) {
	kinds := []struct {
		name string
		get  getter
	}{
		{"container", inspectContainer(size)},
		{"image", inspectImage(nil)},
		{"network", inspectNetwork(false)},
		{"volume", inspectVolume(false)},
	}
	for _, k := range kinds {
		if k.name == kind {
			return k.get, nil
		}
	}
	if kind != "" {
		return nil, fmt.Errorf(`unknown type: %q: must be one of "container", "image", "network", "volume"`, kind)
	}
	return func(ctx context.Context, cl *client.Client, name string) (format.Inspected, error) {
		for _, k := range kinds {
			o, err := k.get(ctx, cl, name)
			if err == nil || !errdefs.IsNotFound(err) && !(k.name != "container" && errdefs.IsInvalidArgument(err)) {
				return o, err
			}
		}
		return format.Inspected{}, fmt.Errorf("Error: No such object: %s", name) //nolint:staticcheck // docker's words
	}, nil
}
