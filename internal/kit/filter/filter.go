// Package filter holds the "filters" parameter of docker's API: for each key a
// set of wanted values.
package filter

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Set maps a filter's name to its values. A nil Set matches everything.
type Set map[string][]string

// Parse decodes the parameter in its present form {"key":{"value":true}} or
// the form before API 1.22, {"key":["value"]}. An empty string is no filter.
func Parse(s string) (Set, error) {
	if s == "" {
		return nil, nil
	}
	out := Set{}
	var now map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &now); err == nil {
		for k, vs := range now {
			for v, on := range vs {
				if on {
					out[k] = append(out[k], v)
				}
			}
			slices.Sort(out[k])
		}
		return out, nil
	}
	var old map[string][]string
	if err := json.Unmarshal([]byte(s), &old); err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid filter: %s: %w", s, err)
	}
	for k, vs := range old {
		out[k] = vs
	}
	return out, nil
}

// Check refuses a filter with a name that is not accepted.
func (s Set) Check(accepted ...string) error {
	for k := range s {
		if !slices.Contains(accepted, k) {
			return errs.Newf(errs.Invalid, "invalid filter '%s'", k)
		}
	}
	return nil
}

// Has reports whether the set has the key at all.
func (s Set) Has(key string) bool { return len(s[key]) > 0 }

// Exact reports whether value is wanted: no filter of that name, or one equal.
func (s Set) Exact(key, value string) bool {
	return !s.Has(key) || slices.Contains(s[key], value)
}

// Fuzzy is [Set.Exact], where a wanted value may also be a regular expression
// that matches (a value that is none is taken as a prefix), as docker's "name".
func (s Set) Fuzzy(key, value string) bool { return s.Matcher(key)(value) }

// Matcher is [Set.Fuzzy] for many values: expressions are compiled once.
func (s Set) Matcher(key string) func(value string) bool {
	wanted := s[key]
	compiled := make([]*regexp.Regexp, len(wanted)) // nil: a prefix
	literal := make([]bool, len(wanted))            // an expression that is plain text
	for i, w := range wanted {
		if re, err := regexp.Compile(w); err == nil {
			var prefix string
			prefix, literal[i] = re.LiteralPrefix()
			literal[i] = literal[i] && prefix == w
			compiled[i] = re
		}
	}
	return func(value string) bool {
		for i, w := range wanted {
			switch re := compiled[i]; {
			case literal[i] && strings.Contains(value, w),
				w == value,
				!literal[i] && re != nil && re.MatchString(value),
				re == nil && strings.HasPrefix(value, w):
				return true
			}
		}
		return len(wanted) == 0
	}
}

// Prefix reports whether a wanted value is a prefix of value, as docker's "id".
func (s Set) Prefix(key, value string) bool {
	if !s.Has(key) {
		return true
	}
	return slices.ContainsFunc(s[key], func(w string) bool { return strings.HasPrefix(value, w) })
}

// Labels reports whether labels have every wanted "name" or "name=value".
func (s Set) Labels(key string, labels map[string]string) bool {
	for _, want := range s[key] {
		k, v, hasValue := strings.Cut(want, "=")
		got, ok := labels[k]
		if !ok || hasValue && got != v {
			return false
		}
	}
	return true
}

// Bool returns the filter as a boolean, def if absent; "1", "true", "0" and
// "false" are accepted.
func (s Set) Bool(key string, def bool) (bool, error) {
	if !s.Has(key) {
		return def, nil
	}
	var on, off bool
	for _, v := range s[key] {
		switch strings.ToLower(v) {
		case "1", "true":
			on = true
		case "0", "false":
			off = true
		default:
			return false, errs.Newf(errs.Invalid, "invalid filter '%s=%s'", key, v)
		}
	}
	if on && off {
		return false, errs.Newf(errs.Invalid, "invalid filter '%s': both true and false", key)
	}
	return on, nil
}
