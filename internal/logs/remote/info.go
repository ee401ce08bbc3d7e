package remote

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Info is what a driver may tell of a container. Its fields and methods carry
// the names that docker's --log-opt tag templates use.
type Info struct {
	Config              map[string]string // the log options
	ContainerID         string
	ContainerName       string // with docker's slash
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	LogPath             string
	DaemonName          string
}

// ID is the container's short id.
func (i *Info) ID() string { return short(i.ContainerID) }

// FullID is the container's id.
func (i *Info) FullID() string { return i.ContainerID }

// Name is the container's, without the slash.
func (i *Info) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the beginning of the image's id, with the algorithm as docker has it.
func (i *Info) ImageID() string { return short(i.ContainerImageID) }

// ImageFullID is the image's id.
func (i *Info) ImageFullID() string { return i.ContainerImageID }

// ImageName is the image as it was named at create.
func (i *Info) ImageName() string { return i.ContainerImageName }

// Command is what the container runs.
func (i *Info) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// Hostname is this host's.
func (i *Info) Hostname() (string, error) { return os.Hostname() }

func short(id string) string { return id[:min(12, len(id))] }

// Tag is --log-opt tag, a template, filled in; without the option it is def.
func (i *Info) Tag(def string) (string, error) {
	text := i.Config["tag"]
	if text == "" {
		text = def
	}
	t, err := template.New("log-tag").Funcs(tagFuncs()).Parse(text)
	if err != nil {
		return "", errs.Newf(errs.Invalid, "invalid log opt tag: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, i); err != nil {
		return "", errs.Newf(errs.Invalid, "invalid log opt tag: %w", err)
	}
	return b.String(), nil
}

// DefaultTag is the tag of all drivers but json-file.
const DefaultTag = "{{.ID}}"

func tagFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b strings.Builder
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
		"title": func(s string) string {
			words := strings.Fields(s)
			for n, w := range words {
				words[n] = strings.ToUpper(w[:1]) + w[1:]
			}
			return strings.Join(words, " ")
		},
		"pad": func(s string, before, after int) string {
			if s == "" || before < 0 || after < 0 || before+after > 4096 {
				return s
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
	}
}

// Attributes collects the labels and variables that the options labels, env and
// their regular expressions name; key changes their names, if it is not nil.
func (i *Info) Attributes(key func(string) string) (map[string]string, error) {
	out := map[string]string{}
	add := func(k, v string) {
		if key != nil {
			k = key(k)
		}
		if k != "" {
			out[k] = v
		}
	}
	env := map[string]string{}
	for _, kv := range i.ContainerEnv {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	for _, from := range []struct {
		option string
		values map[string]string
	}{{"labels", i.ContainerLabels}, {"env", env}} {
		for _, k := range strings.Split(i.Config[from.option], ",") {
			if v, ok := from.values[k]; ok {
				add(k, v)
			}
		}
		pattern := i.Config[from.option+"-regex"]
		if pattern == "" {
			continue
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid log opt %s-regex: %w", from.option, err)
		}
		for k, v := range from.values {
			if re.MatchString(k) {
				add(k, v)
			}
		}
	}
	return out, nil
}

// CommonOption reports whether all drivers of this room take an option.
func CommonOption(key string) bool {
	switch key {
	case "tag", "labels", "labels-regex", "env", "env-regex":
		return true
	}
	return false
}
