package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

func newPush(a *app) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:         "push [OPTIONS] NAME[:TAG]",
		Short:       "Upload an image to a registry",
		Args:        exactArgs(1),
		Annotations: map[string]string{namesKey: "image push, push"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := imageref.Parse(args[0])
			switch {
			case err != nil:
				return err
			case all && !ref.NameOnly():
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && ref.NameOnly():
				ref = ref.Tagged()
				if !quiet {
					fmt.Fprintf(a.out, "Using default tag: %s\n", ref.Tag)
				}
			}
			p, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			auth, err := a.registryAuth(ref)
			if err != nil {
				return err
			}
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			body, err := cl.ImagePush(cmd.Context(), ref.FamiliarString(), client.ImagePushOptions{All: all, Auth: auth, Platform: p})
			if err != nil {
				return err
			}
			defer body.Close()
			var notes []string
			collect := jsonmessage.WithAuxCallback(func(m jsonstream.Message) { notes = append(notes, pushNote(m)...) })
			out := a.out
			if quiet {
				out = io.Discard
			}
			if err := showProgress(body, out, collect); err != nil {
				return err
			}
			for _, n := range notes {
				fmt.Fprintln(a.err, n)
			}
			if quiet {
				fmt.Fprintln(a.out, ref.String())
			}
			return nil
		},
		ValidArgsFunction: a.completeFirst(a.completeImages),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push every tag of the repository")
	fs.StringVar(&platform, "platform", "", "Push one platform of the image (os/arch[/variant])")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Do not show progress")
	fs.Bool("disable-content-trust", true, "Skip image signing")
	_ = fs.MarkHidden("disable-content-trust")
	return cmd
}

// pushNote says what the daemon tells aside of progress.
func pushNote(m jsonstream.Message) []string {
	if m.Aux == nil {
		return nil
	}
	var one auxprogress.ManifestPushedInsteadOfIndex
	if json.Unmarshal(*m.Aux, &one) == nil && one.ManifestPushedInsteadOfIndex {
		return []string{fmt.Sprintf("Info -> Not all multiplatform-content is present, and only the available single-platform image was pushed\n         %s -> %s",
			one.OriginalIndex.Digest, one.SelectedManifest.Digest)}
	}
	var missing auxprogress.ContentMissing
	if json.Unmarshal(*m.Aux, &missing) == nil && missing.ContentMissing {
		return []string{fmt.Sprintf("Info -> Not all content is present locally: %s", missing.Desc.Digest)}
	}
	return nil
}
