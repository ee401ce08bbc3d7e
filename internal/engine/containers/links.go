package containers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// link is another container on the default bridge, by the name it is known to
// the one that has --link.
type link struct {
	alias string
	rec   Record
	at    *network.EndpointSettings
}

// links finds the containers linked on the default bridge, which has no names
// of its own. They must run.
func (s *Service) links(rec *Record) ([]link, error) {
	if !rec.HostConfig.NetworkMode.IsBridge() {
		return nil, nil
	}
	var out []link
	for _, l := range rec.HostConfig.Links {
		ref, alias := splitLink(l)
		other, err := s.index.get(ref)
		if err != nil {
			return nil, fmt.Errorf("could not get container for %s: %w", ref, err)
		}
		v := other.look()
		if !v.st.Phase.live() {
			return nil, errs.Newf(errs.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", v.rec.Name, rec.Name, alias)
		}
		e := v.net.endpoints[network.NetworkBridge]
		if e == nil {
			return nil, errs.Newf(errs.Conflict, "Cannot link to /%s, as it does not belong to the default network", v.rec.Name)
		}
		out = append(out, link{alias, v.rec, e})
	}
	return out, nil
}

// checkLinks refuses to create a container that is linked to one that is not.
func (s *Service) checkLinks(host *container.HostConfig) error {
	if host.NetworkMode.IsUserDefined() {
		return nil // there, links are names that are looked up when asked for
	}
	for _, l := range host.Links {
		ref, _ := splitLink(l)
		if _, err := s.index.get(ref); err != nil {
			return errs.Newf(errs.Invalid, "could not get container for %s: %w", ref, err)
		}
	}
	return nil
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
	host.Links = slices.Clone(host.Links)
	for i, l := range host.Links {
		ref, alias := splitLink(l)
		if other, err := s.index.get(ref); err == nil {
			host.Links[i] = "/" + other.look().rec.Name + ":/" + rec.Name + "/" + alias
		}
	}
	return &host
}

// linkHosts are the linked containers' lines of /etc/hosts.
func linkHosts(links []link) []string {
	var out []string
	for _, l := range links {
		names := []string{l.alias}
		for _, n := range []string{l.rec.Config.Hostname, l.rec.Name} {
			if n != "" && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		for _, n := range names {
			if l.at.IPAddress.IsValid() {
				out = append(out, n+":"+l.at.IPAddress.String())
			}
			if l.at.GlobalIPv6Address.IsValid() {
				out = append(out, n+":"+l.at.GlobalIPv6Address.String())
			}
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
