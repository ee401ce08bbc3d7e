package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/kit/version"
)

func (a *app) printShortVersion() error {
	_, err := fmt.Fprintf(a.out, "Skiff version %s, build %s\n", version.Version, version.Commit)
	return err
}

// versionInfo has docker's field names.
type versionInfo struct {
	Client clientVersion
	Server *serverVersion `json:",omitempty"`
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

type serverVersion struct {
	Platform      system.PlatformInfo
	Components    []component
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	Os            string
	Arch          string
	Experimental  bool `json:",omitempty"`
}

type component struct {
	Name    string
	Version string
	Details map[string]string `json:",omitempty"`
}

func newVersion(a *app) *cobra.Command {
	var layout string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the version information",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.versions(cmd.Context())
			if layout != "" {
				if perr := format.Template(a.out, layout, v); perr != nil {
					return &statusError{64, perr.Error()}
				}
				return err
			}
			printVersions(a.out, v)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&layout, "format", "f", "", inspectFormatHelp)
	return cmd
}

// versions returns what it can, and why the server's is missing.
func (a *app) versions(ctx context.Context) (versionInfo, error) {
	v := versionInfo{Client: clientVersion{
		Version: version.Version, APIVersion: client.MaxAPIVersion, DefaultAPIVersion: client.MaxAPIVersion,
		GitCommit: version.Commit, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
	}}
	cl, err := a.client(ctx)
	if err != nil {
		return v, err
	}
	s, err := cl.ServerVersion(ctx)
	v.Client.APIVersion = cl.APIVersion()
	if err != nil {
		return v, err
	}
	v.Server = &serverVersion{
		Platform: s.Platform, Version: s.Version, APIVersion: s.APIVersion, MinAPIVersion: s.MinAPIVersion,
		Os: s.Os, Arch: s.Arch, Experimental: s.Experimental,
	}
	for _, c := range s.Components {
		v.Server.Components = append(v.Server.Components, component{c.Name, c.Version, c.Details})
	}
	return v, nil
}

func printVersions(w io.Writer, v versionInfo) {
	c := v.Client
	api := c.APIVersion
	if api != c.DefaultAPIVersion {
		api += fmt.Sprintf(" (downgraded from %s)", c.DefaultAPIVersion)
	}
	line := func(name, value string) { fmt.Fprintf(w, " %-18s %s\n", name+":", value) }
	fmt.Fprintln(w, "Client:")
	line("Version", c.Version)
	line("API version", api)
	line("Go version", c.GoVersion)
	line("Git commit", c.GitCommit)
	line("OS/Arch", c.Os+"/"+c.Arch)
	s := v.Server
	if s == nil {
		return
	}
	fmt.Fprintf(w, "\nServer:")
	if s.Platform.Name != "" {
		fmt.Fprintf(w, " %s", s.Platform.Name)
	}
	fmt.Fprintln(w)
	labels := map[string]string{"ApiVersion": "API version", "GoVersion": "Go version", "GitCommit": "Git commit", "BuildTime": "Built", "Os": "OS", "KernelVersion": "Kernel"}
	for _, c := range s.Components {
		fmt.Fprintf(w, " %s:\n", format.Clean(c.Name))
		fmt.Fprintf(w, "  %-17s %s\n", "Version:", format.Clean(c.Version))
		keys := make([]string, 0, len(c.Details))
		for k := range c.Details {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			switch k {
			case "MinAPIVersion", "Arch", "KernelVersion":
				continue // beside others
			case "Os":
				fmt.Fprintf(w, "  %-17s %s/%s\n", "OS/Arch:", c.Details["Os"], c.Details["Arch"])
				continue
			case "ApiVersion":
				fmt.Fprintf(w, "  %-17s %s (minimum version %s)\n", "API version:", c.Details[k], c.Details["MinAPIVersion"])
				continue
			}
			name := labels[k]
			if name == "" {
				name = k
			}
			fmt.Fprintf(w, "  %-17s %s\n", name+":", format.Clean(c.Details[k]))
		}
	}
}
