package containers

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

func itoa(n int) string { return strconv.Itoa(n) }

// List tells of containers, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	f, err := s.newListFilter(ctx, o)
	if err != nil {
		return nil, err
	}
	now := s.now()
	names := map[string]string{} // of images: asked once each
	out := []container.Summary{}
	aliases := s.linkNames()
	var v view // one for all: most may be left out, and it is big
	for _, c := range s.index.all() {
		c.lookInto(&v)
		switch f.decide(&v, len(out)) {
		case skip:
			continue
		case stop:
			return out, nil
		case take:
		}
		sum := summary(&v, now)
		sum.Image = s.imageName(names, &v.rec)
		if more := aliases[c.id]; len(more) > 0 {
			sum.Names = append(sum.Names, more...)
			slices.Sort(sum.Names)
		}
		if o.Size {
			if sum.SizeRw, sum.SizeRootFs, err = s.sizes(ctx, c, &v.rec); err != nil {
				return nil, err
			}
		}
		out = append(out, sum)
	}
	return out, nil
}

func (s *Service) imageName(known map[string]string, rec *Record) string {
	if rec.ImageID == "" || rec.Config.Image == rec.ImageID {
		return rec.Config.Image
	}
	key := rec.Config.Image + "\x00" + rec.ImageID
	name, ok := known[key]
	if !ok {
		name = s.o.Images.ShortName(rec.Config.Image, rec.ImageID)
		known[key] = name
	}
	return name
}

// summary is a container's line in a list, but for the image's name.
func summary(v *view, now time.Time) container.Summary {
	rec := &v.rec
	sum := container.Summary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, ImageID: rec.ImageID, ImageManifestDescriptor: rec.Manifest,
		Command: commandLine(rec), Created: rec.Created.Unix(), Ports: portSummaries(v), Labels: rec.Config.Labels,
		State: container.ContainerState(v.st.Phase), Status: v.st.text(v.health, now),
		Health:          &container.HealthSummary{Status: container.NoHealthcheck},
		NetworkSettings: &container.NetworkSettingsSummary{Networks: endpoints(v)},
		Mounts:          mountPoints(rec),
	}
	if sum.Labels == nil {
		sum.Labels = map[string]string{}
	}
	sum.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	sum.HostConfig.Annotations = rec.HostConfig.Annotations
	if v.health != nil {
		sum.Health = &container.HealthSummary{Status: v.health.Status, FailingStreak: v.health.FailingStreak}
	}
	return sum
}

// commandLine quotes arguments with spaces, as docker does.
func commandLine(rec *Record) string {
	line := rec.Path
	for _, a := range rec.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		line += " " + a
	}
	return line
}

func portSummaries(v *view) []container.PortSummary {
	out := []container.PortSummary{}
	for p, bindings := range ports(v) {
		if len(bindings) == 0 {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			r, err := network.ParsePortRange(b.HostPort)
			if err != nil {
				continue
			}
			out = append(out, container.PortSummary{
				IP: b.HostIP, PrivatePort: p.Num(), PublicPort: r.Start(), Type: string(p.Proto()),
			})
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), strings.Compare(a.Type, b.Type),
			cmp.Compare(a.PublicPort, b.PublicPort), a.IP.Compare(b.IP))
	})
	return out
}
