package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client/pkg/security"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/kit/version"
)

// infoDocument is what --format sees: the daemon's fields and the client's.
type infoDocument struct {
	system.Info
	ClientInfo   clientInfo
	ServerErrors []string `json:",omitempty"`
}

type clientInfo struct {
	Debug      bool
	Context    string
	Plugins    []string
	Warnings   []string
	Version    string `json:",omitempty"`
	APIVersion string `json:"ApiVersion,omitempty"`
}

func newInfo(a *app) *cobra.Command {
	var layout string
	cmd := &cobra.Command{
		Use:         "info [OPTIONS]",
		Short:       "Display system-wide information",
		Args:        noArgs,
		Annotations: map[string]string{namesKey: "system info, info"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.info(cmd.Context(), layout)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&layout, "format", "f", "", inspectFormatHelp)
	return cmd
}

func (a *app) info(ctx context.Context, layout string) error {
	d := infoDocument{ClientInfo: clientInfo{Debug: a.flags.debug, Context: "default", Version: version.Version, Plugins: []string{}}}
	cl, err := a.client(ctx)
	if err == nil {
		d.Info, err = cl.Info(ctx)
		d.ClientInfo.APIVersion = cl.APIVersion()
	}
	if err != nil {
		d.ServerErrors = []string{a.explain(err)}
	}
	if layout != "" {
		if layout == "{{json .}}" {
			layout = format.JSONKey
		}
		if layout == format.JSONKey {
			b, err := json.Marshal(d)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, string(b))
		} else if err := format.Template(a.out, layout, d); err != nil {
			return &statusError{64, err.Error()}
		}
		return err
	}
	fmt.Fprintf(a.out, "Client:\n Version:    %s\n Context:    default\n Debug Mode: %t\n\nServer:\n", version.Version, a.flags.debug)
	if err != nil {
		return &statusError{1, "ERROR: " + a.explain(err) + "\nerrors pretty printing info"}
	}
	printInfo(a.out, &d.Info)
	for _, w := range d.Warnings {
		fmt.Fprintln(a.err, format.Clean(w))
	}
	return nil
}

// infoPrinter writes indented "name: value" lines.
type infoPrinter struct{ w io.Writer }

func (p infoPrinter) line(indent int, name string, value any) {
	s := format.Clean(fmt.Sprint(value))
	fmt.Fprintf(p.w, "%s%s: %s\n", strings.Repeat(" ", indent), name, s)
}

// some prints a line unless its value is empty.
func (p infoPrinter) some(indent int, name, value string) {
	if value != "" {
		p.line(indent, name, value)
	}
}

func printInfo(w io.Writer, i *system.Info) {
	p := infoPrinter{w}
	p.line(1, "Containers", i.Containers)
	p.line(2, "Running", i.ContainersRunning)
	p.line(2, "Paused", i.ContainersPaused)
	p.line(2, "Stopped", i.ContainersStopped)
	p.line(1, "Images", i.Images)
	p.some(1, "Server Version", i.ServerVersion)
	p.some(1, "Storage Driver", i.Driver)
	for _, s := range i.DriverStatus {
		p.line(2, s[0], s[1])
	}
	p.some(1, "Logging Driver", i.LoggingDriver)
	p.some(1, "Cgroup Driver", i.CgroupDriver)
	p.some(1, "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	p.line(2, "Volume", strings.Join(i.Plugins.Volume, " "))
	p.line(2, "Network", strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		p.line(2, "Authorization", strings.Join(i.Plugins.Authorization, " "))
	}
	p.line(2, "Log", strings.Join(i.Plugins.Log, " "))
	if s := i.Swarm.LocalNodeState; s != "" {
		p.line(1, "Swarm", s)
	}
	if len(i.Runtimes) > 0 {
		names := make([]string, 0, len(i.Runtimes))
		for n := range i.Runtimes {
			names = append(names, n)
		}
		sort.Strings(names)
		p.line(1, "Runtimes", strings.Join(names, " "))
		p.line(1, "Default Runtime", i.DefaultRuntime)
	}
	if i.OSType == "linux" {
		p.some(1, "Init Binary", i.InitBinary)
		p.some(1, "containerd version", i.ContainerdCommit.ID)
		p.some(1, "runc version", i.RuncCommit.ID)
		p.some(1, "init version", i.InitCommit.ID)
		printSecurity(p, i.SecurityOptions)
	}
	p.some(1, "Kernel Version", i.KernelVersion)
	p.some(1, "Operating System", i.OperatingSystem)
	p.some(1, "OSType", i.OSType)
	p.some(1, "Architecture", i.Architecture)
	p.line(1, "CPUs", i.NCPU)
	p.line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	p.some(1, "Name", i.Name)
	p.some(1, "ID", i.ID)
	p.line(1, "Docker Root Dir", i.DockerRootDir)
	p.line(1, "Debug Mode", i.Debug)
	if i.Debug {
		p.line(2, "File Descriptors", i.NFd)
		p.line(2, "Goroutines", i.NGoroutines)
		p.line(2, "System Time", i.SystemTime)
		p.line(2, "EventsListeners", i.NEventsListener)
	}
	p.some(1, "HTTP Proxy", i.HTTPProxy)
	p.some(1, "HTTPS Proxy", i.HTTPSProxy)
	p.some(1, "No Proxy", i.NoProxy)
	printList(w, "Labels", i.Labels)
	p.line(1, "Experimental", i.ExperimentalBuild)
	printRegistries(w, i)
	p.line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
	if f := i.FirewallBackend; f != nil {
		p.line(1, "Firewall Backend", f.Driver)
		for _, kv := range f.Info {
			p.line(2, kv[0], kv[1])
		}
	}
	fmt.Fprintln(w)
}

func printSecurity(p infoPrinter, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(p.w, " Security Options:")
	for _, o := range security.DecodeOptions(options) {
		fmt.Fprintf(p.w, "  %s\n", format.Clean(o.Name))
		for _, kv := range o.Options {
			if kv.Key == "profile" {
				p.line(3, "Profile", kv.Value)
			}
		}
	}
}

func printRegistries(w io.Writer, i *system.Info) {
	rc := i.RegistryConfig
	if rc == nil {
		return
	}
	var insecure []string
	for _, ix := range rc.IndexConfigs {
		if !ix.Secure {
			insecure = append(insecure, ix.Name)
		}
	}
	sort.Strings(insecure)
	for _, c := range rc.InsecureRegistryCIDRs {
		insecure = append(insecure, c.String())
	}
	printList(w, "Insecure Registries", insecure)
	printList(w, "Registry Mirrors", rc.Mirrors)
}

func printList(w io.Writer, title string, list []string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, " %s:\n", title)
	for _, s := range list {
		fmt.Fprintf(w, "  %s\n", format.Clean(s))
	}
}
