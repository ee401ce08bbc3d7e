package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
)

// completer answers a shell that asks for the next word.
type completer = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// completeContainers offers names of containers in the given states, or all.
func (a *app) completeContainers(states ...string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		a.flags.noAutostart = true // asking must not start anything
		cl, err := a.client(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		f := client.Filters{}
		if len(states) > 0 {
			f.Add("status", states...)
		}
		r, err := cl.ContainerList(cmd.Context(), client.ContainerListOptions{All: true, Filters: f})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, c := range r {
			if n := containerNames(c.Names, true); n != "" {
				out = append(out, n)
			}
		}
		return unused(out, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers names of images.
func (a *app) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.flags.noAutostart = true
	cl, err := a.client(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	r, err := cl.ImageList(cmd.Context(), client.ImageListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, row := range imageRows(r, false, false) {
		if row.repo == none {
			continue
		}
		name := row.repo
		if row.tag != none {
			name += ":" + row.tag
			if row.tag == "latest" {
				out = append(out, row.repo)
			}
		}
		out = append(out, name)
	}
	return unused(out, args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeNetworks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.flags.noAutostart = true
	cl, err := a.client(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	r, err := cl.NetworkList(cmd.Context(), nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, n := range r {
		out = append(out, n.Name)
	}
	return unused(out, args), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeVolumes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.flags.noAutostart = true
	cl, err := a.client(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	r, err := cl.VolumeList(cmd.Context(), nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, v := range r.Volumes {
		out = append(out, v.Name)
	}
	return unused(out, args), cobra.ShellCompDirectiveNoFileComp
}

// completeFirst offers for the first argument only.
func (a *app) completeFirst(f completer) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, prefix)
	}
}

// firstThenFiles leaves what follows the first argument to the shell.
func (a *app) firstThenFiles(f completer) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return f(cmd, args, prefix)
	}
}

// completeCopy offers containers with a colon, or files.
func (a *app) completeCopy(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.ContainsAny(prefix, "/.") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, d := a.completeContainers()(cmd, nil, prefix)
	if d == cobra.ShellCompDirectiveError {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for i := range names {
		names[i] += ":"
	}
	return names, cobra.ShellCompDirectiveNoSpace
}

// unused takes out what is there already, and control characters.
func unused(names, args []string) []string {
	given := map[string]bool{}
	for _, s := range args {
		given[s] = true
	}
	var out []string
	for _, n := range names {
		if !given[n] {
			out = append(out, format.Clean(n))
		}
	}
	return out
}
