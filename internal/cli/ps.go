package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/format"
	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/kit/imageref"
)

type psOptions struct {
	all, size, quiet, noTrunc, latest bool
	last                              int
	format                            string
	filter                            opts.Filter
}

func newPs(a *app) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use:         "ps [OPTIONS]",
		Short:       "List containers",
		Args:        noArgs,
		Annotations: map[string]string{namesKey: "container ls, container list, container ps, ps"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ps(cmd.Context(), cmd.Flags().Changed("size"), &o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers, not just running ones")
	fs.VarP(&o.filter, "filter", "f", "Show only what matches (name=value)")
	fs.StringVar(&o.format, "format", "", formatHelp)
	fs.IntVarP(&o.last, "last", "n", -1, "Show the n last created containers, in any state")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the last created container, in any state")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten the output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Show container IDs only")
	fs.BoolVarP(&o.size, "size", "s", false, "Show sizes of files")
	return cmd
}

func (a *app) ps(ctx context.Context, sizeGiven bool, o *psOptions) error {
	layout, err := a.layout(o.format, "ps", o.quiet)
	if err != nil {
		return err
	}
	t := containerTable(!o.noTrunc, o.size, time.Now())
	p, err := t.Prepare(layout, o.quiet)
	if err != nil {
		return err
	}
	req := client.ContainerListOptions{All: o.all, Size: o.size, Limit: o.last, Filters: o.filter.Values}
	if !sizeGiven && layout != format.JSONKey {
		req.Size = p.Uses("Size")
	}
	if o.latest && o.last == -1 {
		req.Limit = 1
	}
	if o.quiet && o.format == "" {
		req.Size = false
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	list, err := cl.ContainerList(ctx, req)
	if err != nil {
		return err
	}
	return p.Write(a.out, list)
}

// layout is the flag's format, or what the configuration prefers.
func (a *app) layout(flag, noun string, quiet bool) (string, error) {
	if flag != "" || quiet {
		return flag, nil
	}
	conf, err := a.config()
	if err != nil {
		return "", err
	}
	return conf.Format(noun), nil
}

func containerTable(trunc, size bool, now time.Time) *format.Table[container.Summary] {
	type c = container.Summary
	col := format.Col[c]
	id := func(s string) string {
		if trunc {
			return format.ShortID(s)
		}
		return s
	}
	t := &format.Table[c]{
		Columns: []format.Column[c]{
			col("ID", "CONTAINER ID", func(v c) string { return id(v.ID) }),
			col("Names", "NAMES", func(v c) string { return containerNames(v.Names, trunc) }),
			col("Image", "IMAGE", func(v c) string { return containerImage(v, trunc) }),
			col("Command", "COMMAND", func(v c) string {
				if trunc {
					return strconv.Quote(format.Ellipsis(v.Command, 20))
				}
				return strconv.Quote(v.Command)
			}),
			col("CreatedAt", "CREATED AT", func(v c) string { return time.Unix(v.Created, 0).String() }),
			col("RunningFor", "CREATED", func(v c) string { return ago(now, time.Unix(v.Created, 0)) }),
			col("Ports", "PORTS", func(v c) string { return portSummary(v.Ports) }),
			col("State", "STATE", func(v c) string { return string(v.State) }),
			col("Status", "STATUS", func(v c) string { return v.Status }),
			col("Size", "SIZE", containerSize),
			col("Labels", "LABELS", func(v c) string { return labels(v.Labels) }),
			col("Mounts", "MOUNTS", func(v c) string { return containerMounts(v, trunc) }),
			col("LocalVolumes", "LOCAL VOLUMES", func(v c) string {
				n := 0
				for _, m := range v.Mounts {
					if m.Driver == "local" {
						n++
					}
				}
				return strconv.Itoa(n)
			}),
			col("Networks", "NETWORKS", func(v c) string {
				if v.NetworkSettings == nil {
					return ""
				}
				names := make([]string, 0, len(v.NetworkSettings.Networks))
				for n := range v.NetworkSettings.Networks {
					names = append(names, n)
				}
				slices.Sort(names)
				return strings.Join(names, ",")
			}),
			{Name: "Platform", Header: "PLATFORM", Value: func(v c) any {
				if d := v.ImageManifestDescriptor; d != nil && d.Platform != nil {
					return d.Platform
				}
				return nil
			}},
		},
		Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
		Quiet:   "{{.ID}}",
		Labels:  func(v c) map[string]string { return v.Labels },
	}
	if size {
		t.Default += "\t{{.Size}}"
	}
	return t
}

// containerNames lists names without their slash; links of others ("/a/b") only
// in full.
func containerNames(names []string, trunc bool) string {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(n, "/")
		if trunc {
			if strings.Contains(n, "/") {
				continue
			}
			return n
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

func containerImage(v container.Summary, trunc bool) string {
	if v.Image == "" {
		return "<no image>"
	}
	if !trunc {
		return v.Image
	}
	if id := format.ShortID(v.ImageID); id != "" && id == format.ShortID(v.Image) {
		return id
	}
	// A tag says more than the digest behind it.
	if ref, err := imageref.Parse(v.Image); err == nil && ref.Tag != "" && ref.Digest != "" {
		ref.Digest = ""
		return ref.FamiliarString()
	}
	return v.Image
}

func containerSize(v container.Summary) string {
	s := units.HumanSizeWithPrecision(float64(v.SizeRw), 3)
	if v.SizeRootFs > 0 {
		s += " (virtual " + units.HumanSizeWithPrecision(float64(v.SizeRootFs), 3) + ")"
	}
	return s
}

func containerMounts(v container.Summary, trunc bool) string {
	var out []string
	for _, m := range v.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if trunc {
			name = format.Ellipsis(name, 15)
		}
		out = append(out, name)
	}
	return strings.Join(out, ",")
}

// labels lists labels in a fixed order.
func labels(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// ago is a rounded age, "" for no time at all.
func ago(now, t time.Time) string {
	if t.Unix() <= 0 {
		return ""
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// portSummary lists ports, neighbours drawn together: those that are published
// under their own number or not at all become ranges.
func portSummary(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(x, y container.PortSummary) int {
		for _, d := range []int{
			int(x.PrivatePort) - int(y.PrivatePort), x.IP.Compare(y.IP), int(x.PublicPort) - int(y.PublicPort),
		} {
			if d != 0 {
				return d
			}
		}
		return strings.Compare(x.Type, y.Type)
	})
	type key struct {
		ip   netip.Addr
		kind string
	}
	type span struct{ first, last uint16 }
	var (
		out, mapped []string
		order       []key
		open        = map[key]*span{}
	)
	for _, p := range ports {
		k := key{kind: p.Type}
		if p.IP.IsValid() {
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(p.IP.String(), strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			k.ip = p.IP
		}
		g := open[k]
		switch {
		case g == nil:
			open[k] = &span{p.PrivatePort, p.PrivatePort}
			order = append(order, k)
		case p.PrivatePort == g.last+1:
			g.last = p.PrivatePort
		default:
			out = append(out, portSpan(k.ip, k.kind, g.first, g.last))
			*g = span{p.PrivatePort, p.PrivatePort}
		}
	}
	for _, k := range order {
		out = append(out, portSpan(k.ip, k.kind, open[k].first, open[k].last))
	}
	return strings.Join(append(out, mapped...), ", ")
}

func portSpan(ip netip.Addr, kind string, first, last uint16) string {
	s := strconv.Itoa(int(first))
	if first != last {
		s += "-" + strconv.Itoa(int(last))
	}
	if ip.IsValid() {
		s = net.JoinHostPort(ip.String(), s) + "->" + s
	}
	return s + "/" + kind
}
