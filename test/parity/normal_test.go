//go:build root

package parity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// rewrites takes out of a text what no two runs have in common.
var rewrites = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\x1b\[[0-9;]*m|\x00`), ""},
	{regexp.MustCompile(`0001-01-01T00:00:00Z`), "<never>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?`), "<time>"},
	{regexp.MustCompile(`(About an?|Less than a|\d+) (second|minute|hour)s?( ago)?`), "<ago>"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "<mac>"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(e[+-]\d+)?\s?([kKMGT]i?)?B\b`), "<size>"},
	{regexp.MustCompile(`\b\d+\.\d+%`), "<percent>"},
	{regexp.MustCompile(`:(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|60\d{3})\b`), ":<port>"},
	{regexp.MustCompile(`"(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|60\d{3})"`), `"<port>"`},
	{regexp.MustCompile(`\b172\.(1[89]|2\d|3[01])\.`), "172.<n>."},
	{regexp.MustCompile(`/?\b[a-z]{3,}_[a-z]{3,}/db\b|endpoint [a-z]+_[a-z]+`), "<name>"},
	{regexp.MustCompile(`^[0-9a-f]{7,8}$`), "<commit>"},
	{regexp.MustCompile(`/layers/dirs/[a-z0-9]{12}\b`), "/layers/dirs/<id>"},
	{regexp.MustCompile(`/proc/\d+/ns/`), "/proc/<pid>/ns/"},
	{regexp.MustCompile(`time="<time>" level=error msg="error waiting for container: context canceled"\n?`), ""}, // or not, by chance
	{regexp.MustCompile(`endpoints: b, a\b`), "endpoints: a, b"},                                                 // a map's order
	{regexp.MustCompile(`skiff-parity-\d+|skiff-e2e-\d+`), "<daemon>"},
	{regexp.MustCompile(`/var/lib/docker/tmp/[^ :]*|/tmp/docker-import-\d+|docker-builder\d+|docker-\w+-\d{6,}`), "<tmp>"},
	{regexp.MustCompile(`[ \t]*\t[ \t]*| {2,}`), "  "},
	{regexp.MustCompile(`[ \t]+\n`), "\n"},
}

func (e *engine) text(s string) string {
	s = strings.ReplaceAll(e.places.Replace(s), "\r", "")
	for _, r := range rewrites {
		s = r.re.ReplaceAllString(s, r.to)
	}
	return strings.TrimSpace(s)
}

// varying are the names of JSON numbers that differ from run to run.
var varying = regexp.MustCompile(`(?i)^(pid|created|createdat|time|timenano|size|sizerw|sizerootfs|virtualsize|sharedsize|layerssize|spacereclaimed|` +
	`current|total|usage|max_usage|limit|total_usage|usage_in_usermode|usage_in_kernelmode|system_cpu_usage|percpu_usage|value|[tr]x_.*|` +
	`memtotal|nfd|ngoroutines|neventslistener|pgfault|.*(pgfault|pgmajfault|pgpgin|pgpgout|rss|cache|anon|file|dirty|writeback).*|` +
	`throttled_time|periods|ino|mtime|duration)$`)

// document reads a text as JSON: a value, or several as a list.
func document(s string) (any, bool) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "{") && !strings.HasPrefix(s, "[") {
		return nil, false
	}
	var all []any
	dec := json.NewDecoder(strings.NewReader(s))
	for {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, false
		}
		all = append(all, v)
	}
	if len(all) == 1 {
		return all[0], true
	}
	return all, true
}

// normal rewrites a JSON value as text is rewritten; key is the name it has.
func (e *engine) normal(key string, v any) any {
	if _, list := v.([]any); list && strings.HasSuffix(key, "_recursive") {
		return "<list>" // of input and output, which there may have been or not
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		alike := map[string][]any{} // keys that are told by what they stand for only
		for k, x := range v {
			alike[e.text(k)] = append(alike[e.text(k)], e.normal(k, x))
		}
		for k, all := range alike {
			slices.SortFunc(all, func(a, b any) int { return strings.Compare(render(a), render(b)) })
			for i, x := range all {
				out[k+strings.Repeat("'", i)] = x
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = e.normal(key, x)
		}
		slices.SortStableFunc(out, func(a, b any) int { return strings.Compare(rank(a), rank(b)) })
		return out
	case string:
		if key == "Labels" { // which the client writes in any order
			all := strings.Split(v, ",")
			slices.Sort(all)
			v = strings.Join(all, ",")
		}
		return e.text(v)
	case float64:
		if varying.MatchString(key) {
			return "<number>"
		}
	}
	return v
}

// rank orders what the engines list in any order: mounts, ports, changed paths.
func rank(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	var b strings.Builder
	for _, k := range []string{"Destination", "PrivatePort", "PublicPort", "Type", "IP", "Path", "HostIp", "HostPort"} {
		if x, ok := m[k]; ok {
			fmt.Fprint(&b, x, " ")
		}
	}
	return b.String()
}
