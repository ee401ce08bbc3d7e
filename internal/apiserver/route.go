package apiserver

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// Access says what a request does, and so what its caller must be allowed.
type Access uint8

// What a listener may allow: see [Limit].
const (
	ReadOnly Access = iota + 1 // look, change nothing
	Full                       // everything; the same as root on this host
)

// traits of a route: what it does, and whether it ends by itself.
type traits uint8

const (
	read    traits = iota // looks
	write                 // changes
	endless traits = 0x80 // runs until its client or the server goes: ended at once on shutdown
)

func (t traits) needs() Access {
	if t&^endless == read {
		return ReadOnly
	}
	return Full
}

type handler func(s *Server, w http.ResponseWriter, r *request) error

// route is one line of the API: a {name} in path stands for one or more
// characters, slashes too, as names of images have them.
type route struct {
	method, path string
	traits       traits
	since        int // the minor API version it came with; 0: always there
	handle       handler
}

func allRoutes() []route {
	return slices.Concat(systemRoutes(), containerRoutes(), checkpointRoutes(), execRoutes(), imageRoutes(), networkRoutes(),
		volumeRoutes(), buildRoutes(), swarmRoutes(), pluginRoutes(), refusedRoutes())
}

// table finds the route of a request.
type table struct {
	exact   map[string]*route // by "METHOD /path"
	pattern map[string][]*pattern
}

// pattern is a path cut at its variables.
type pattern struct {
	*route
	before, between, after string
	two                    bool
}

func newTable(routes []route) *table {
	t := &table{map[string]*route{}, map[string][]*pattern{}}
	for i := range routes {
		r := &routes[i]
		before, rest, ok := strings.Cut(r.path, "{")
		if !ok {
			t.exact[r.method+" "+r.path] = r
			continue
		}
		p := &pattern{route: r, before: before}
		_, p.after, _ = strings.Cut(rest, "}")
		if p.between, rest, p.two = strings.Cut(p.after, "{"); p.two {
			_, p.after, _ = strings.Cut(rest, "}")
		}
		t.pattern[r.method] = append(t.pattern[r.method], p)
	}
	for _, ps := range t.pattern { // what says more comes first
		slices.SortStableFunc(ps, func(a, b *pattern) int { return cmp.Compare(b.literal(), a.literal()) })
	}
	return t
}

func (p *pattern) literal() int { return len(p.before) + len(p.between) + len(p.after) }

// find returns the route of a path without version, and what its variables
// stand for.
func (t *table) find(method, path string) (r *route, name, sub string) {
	if r := t.exact[method+" "+path]; r != nil {
		return r, "", ""
	}
	for _, p := range t.pattern[method] {
		if name, sub, ok := p.match(path); ok {
			return p.route, name, sub
		}
	}
	return nil, "", ""
}

func (p *pattern) match(path string) (name, sub string, ok bool) {
	if len(path) <= len(p.before)+len(p.after) || !strings.HasPrefix(path, p.before) || !strings.HasSuffix(path, p.after) {
		return "", "", false
	}
	name = path[len(p.before) : len(path)-len(p.after)]
	if p.two {
		i := strings.LastIndex(name, p.between)
		if i <= 0 || i+len(p.between) == len(name) {
			return "", "", false
		}
		name, sub = name[:i], name[i+len(p.between):]
	}
	return name, sub, true
}
