package containers

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	sknet "github.com/skiff-containers/skiff/internal/network"
)

// link is another container on the default bridge, by the name it is known to
// the one that has --link. It has names of docker's kind, too: it is found as
// PARENT/ALIAS, and listed so.
type link struct {
	alias string
	rec   Record
	at    *network.EndpointSettings
}

// links finds the containers linked on the default bridge. They must run.
func (s *Service) links(rec *Record) ([]link, error) {
	var out []link
	for _, l := range rec.Links {
		found, err := s.live(rec, l)
		if err != nil {
			return nil, err
		}
		out = append(out, found)
	}
	return out, nil
}

// liveLinks are those of the links whose containers run.
func (s *Service) liveLinks(rec *Record) []link {
	var out []link
	for _, l := range rec.Links {
		if found, err := s.live(rec, l); err == nil {
			out = append(out, found)
		}
	}
	return out
}

// live finds a linked container that runs.
func (s *Service) live(rec *Record, l Link) (link, error) {
	other := s.index.linked(l)
	if other == nil {
		return link{}, errs.Newf(errs.NotFound, "could not get container for %s: No such container: %s", l.Ref, l.Ref)
	}
	v := other.look()
	if !v.st.Phase.live() {
		return link{}, errs.Newf(errs.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", v.rec.Name, rec.Name, l.Alias)
	}
	e := v.net.endpoints[network.NetworkBridge]
	if e == nil {
		return link{}, errs.Newf(errs.Conflict, "Cannot link to /%s, as it does not belong to the default network", v.rec.Name)
	}
	return link{l.Alias, v.rec, e}, nil
}

// declaredLinks finds the containers that one on the default bridge is linked
// to, which must be there already. Elsewhere, links are names that are looked
// up when asked for.
func (s *Service) declaredLinks(host *container.HostConfig) ([]Link, error) {
	if host.NetworkMode.IsUserDefined() {
		return nil, nil
	}
	var out []Link
	for _, l := range host.Links {
		ref, alias := splitLink(l)
		other, err := s.linkTarget(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, Link{other.ID, ref, alias})
	}
	return out, nil
}

// linkTarget is the container whose network the one of that name has.
func (s *Service) linkTarget(ref string) (*Record, error) {
	for range maxChain {
		other, err := s.index.get(ref)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "could not get container for %s: %w", ref, err)
		}
		rec := other.record()
		switch mode := rec.HostConfig.NetworkMode; {
		case mode.IsHost():
			return nil, errs.New(errs.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		case !mode.IsContainer():
			return &rec, nil
		default:
			ref = mode.ConnectedContainer()
		}
	}
	return nil, errs.Newf(errs.Invalid, "could not get container for %s: it has no network of its own", ref)
}

// splitLink is the container and the name that a --link says.
func splitLink(l string) (ref, alias string) {
	ref, alias, ok := strings.Cut(l, ":")
	if !ok {
		alias = ref
	}
	return ref, alias[strings.LastIndexByte(alias, '/')+1:]
}

// shownLinks is the host configuration as inspect tells it: links on the default
// bridge by the names of both containers, as clients compare them.
func (s *Service) shownLinks(rec *Record) *container.HostConfig {
	if len(rec.HostConfig.Links) == 0 || !rec.HostConfig.NetworkMode.IsBridge() {
		return rec.HostConfig
	}
	host := *rec.HostConfig
	host.Links = nil
	for _, l := range rec.Links {
		name := l.Ref
		if other := s.index.linked(l); other != nil {
			name = other.name()
		}
		host.Links = append(host.Links, "/"+name+":/"+rec.Name+"/"+l.Alias)
	}
	return &host
}

// linkNames are the names that containers have by the links of others, by id.
func (s *Service) linkNames() map[string][]string {
	var out map[string][]string
	for id, links := range s.index.links() {
		parent := s.index.exact(id)
		if parent == nil {
			continue
		}
		name := parent.name()
		for _, l := range links {
			if child := s.index.linked(l); child != nil {
				if out == nil {
					out = map[string][]string{}
				}
				out[child.id] = append(out[child.id], "/"+name+"/"+l.Alias)
			}
		}
	}
	return out
}

// removeLink takes away the name that a container has by a link; both
// containers stay.
func (s *Service) removeLink(ctx context.Context, ref string) error {
	if _, err := s.index.get(ref); err != nil {
		return err
	}
	parent, alias, ok := strings.Cut(strings.Trim(ref, "/"), "/")
	if !ok {
		return errs.New(errs.Internal, "Conflict, cannot remove the default link name of the container")
	}
	c, done, err := s.claim(ctx, parent)
	if err != nil {
		return err
	}
	defer done()
	set := func(links []Link) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rec.Links = links
	}
	rec := c.record()
	links := slices.DeleteFunc(slices.Clone(rec.Links), func(l Link) bool { return l.Alias == alias })
	if len(links) == len(rec.Links) { // another was first
		return errs.Newf(errs.NotFound, "No such container: %s", ref)
	}
	set(links)
	if err := s.saveRecord(c); err != nil {
		set(rec.Links)
		return err
	}
	s.index.setLinks(c.id, links)
	c.mu.Lock()
	sandbox := c.sandbox
	c.mu.Unlock()
	if sandbox == nil {
		return nil
	}
	sandbox.SetLinks(s.sandboxLinks(links))
	return s.saveRun(c)
}

// sandboxLinks are the links as /etc/hosts has them.
func (s *Service) sandboxLinks(links []Link) []sknet.Link {
	var out []sknet.Link
	for _, l := range links {
		if other := s.index.linked(l); other != nil {
			out = append(out, sknet.Link{ID: other.id, Alias: l.Alias})
		}
	}
	return out
}

// linkEnv is what docker's oldest way of finding each other puts into the
// environment: the linked containers' ports and variables.
func linkEnv(name string, links []link) []string {
	var out []string
	for _, l := range links {
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		add := func(key, value string) { out = append(out, prefix+key+"="+value) }
		ip := l.at.IPAddress.String()
		ports := slices.SortedFunc(maps.Keys(l.rec.Config.ExposedPorts), func(a, b network.Port) int {
			return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
		})
		for i, p := range ports {
			num, proto := strconv.Itoa(int(p.Num())), string(p.Proto())
			url := proto + "://" + ip + ":" + num
			if i == 0 { // the lowest stands for the container
				add("_PORT", url)
			}
			key := "_PORT_" + num + "_" + strings.ToUpper(proto)
			add(key, url)
			add(key+"_ADDR", ip)
			add(key+"_PORT", num)
			add(key+"_PROTO", proto)
		}
		add("_NAME", "/"+name+"/"+l.alias)
		for _, e := range l.rec.Config.Env {
			if k, v, ok := strings.Cut(e, "="); ok && k != "HOME" && k != "PATH" {
				add("_ENV_"+k, v)
			}
		}
	}
	return out
}
