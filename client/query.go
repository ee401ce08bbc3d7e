package client

import (
	"encoding/json"
	"maps"
	"net/url"
	"path"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Filters narrow a list down: an item must match one of the values of every
// term.
type Filters map[string]map[string]bool

// Add adds values to a term.
func (f Filters) Add(term string, values ...string) Filters {
	if f[term] == nil {
		f[term] = make(map[string]bool)
	}
	for _, v := range values {
		f[term][v] = true
	}
	return f
}

// Clone returns a copy that shares nothing; never nil.
func (f Filters) Clone() Filters {
	out := make(Filters, len(f))
	for term, values := range f {
		out[term] = maps.Clone(values)
	}
	return out
}

// query builds a request's parameters; what is not set is left out.
type query url.Values

func (q query) text(key, value string) query {
	if value != "" {
		q[key] = []string{value}
	}
	return q
}

func (q query) texts(key string, values []string) query {
	if len(values) > 0 {
		q[key] = values
	}
	return q
}

func (q query) flag(key string, set bool) query {
	if set {
		q[key] = []string{"1"}
	}
	return q
}

func (q query) number(key string, n int64) query {
	if n != 0 {
		q[key] = []string{strconv.FormatInt(n, 10)}
	}
	return q
}

// document sets a parameter to a JSON document, unless that is empty.
func (q query) document(key string, v any) query {
	b, err := json.Marshal(v)
	if err == nil && string(b) != "null" && string(b) != "{}" && string(b) != "[]" {
		q[key] = []string{string(b)}
	}
	return q
}

func (q query) filters(f Filters) query { return q.document("filters", f) }

// platforms sets a parameter to a list of platforms, a document each.
func (q query) platforms(key string, list []ocispec.Platform) query {
	for _, p := range list {
		b, err := json.Marshal(p)
		if err == nil {
			q[key] = append(q[key], string(b))
		}
	}
	return q
}

func (q query) values() url.Values { return url.Values(q) }

// platformText is "os/arch/variant", or "".
func platformText(p *ocispec.Platform) string {
	if p == nil || p.OS == "" {
		return ""
	}
	return path.Join(p.OS, p.Architecture, p.Variant)
}
