package remote

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func info(opts map[string]string) *Info {
	return &Info{
		Config: opts, ContainerID: strings.Repeat("c1", 32), ContainerName: "/web", ContainerEntrypoint: "/bin/sh", ContainerArgs: []string{"-c", "x"},
		ContainerImageID: "sha256:" + strings.Repeat("ab", 32), ContainerImageName: "repo/img:1", ContainerCreated: time.Unix(0, 0),
		ContainerEnv: []string{"A=1", "B=x=y", "C"}, ContainerLabels: map[string]string{"l": "2", "other": "3"}, DaemonName: "docker",
	}
}

func TestTag(t *testing.T) {
	for tag, want := range map[string]string{
		"":                             "c1c1c1c1c1c1",
		"{{.ID}}":                      "c1c1c1c1c1c1",
		"{{.FullID}}":                  strings.Repeat("c1", 32),
		"{{.Name}}":                    "web",
		"{{.ImageID}}":                 "sha256:ababa",
		"{{.ImageName}}":               "repo/img:1",
		"{{.DaemonName}}/{{.Command}}": "docker//bin/sh -c x",
		"{{upper .Name}} {{truncate .ImageName 4}}":        "WEB repo",
		`{{index (split .ImageName "/") 1}}`:               "img:1",
		`{{json .ContainerLabels}}`:                        `{"l":"2","other":"3"}`,
		`{{range $i, $e := .ContainerEnv}}{{$i}}{{end}}`:   "012",
		`{{(.ExtraAttributes nil).x}}`:                     "error",
		"{{.Nosuch}}":                                      "error",
		"{{":                                               "error",
		"plain":                                            "plain",
		`{{title "a b"}}{{pad "x" 1 1}}{{lower "Q"}}`:      "A B x q",
		`{{join (split "a,b" ",") "+"}}{{truncate "a" 5}}`: "a+ba",
	} {
		got, err := info(map[string]string{"tag": tag}).Tag(DefaultTag)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: got %q, want %q (%v)", tag, got, want, err)
		}
	}
}

func TestAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		opts, want map[string]string
	}{
		"none":     {nil, map[string]string{}},
		"named":    {map[string]string{"labels": "l,nosuch", "env": "A,C"}, map[string]string{"l": "2", "A": "1"}},
		"patterns": {map[string]string{"labels-regex": "^o", "env-regex": "[BC]"}, map[string]string{"other": "3", "B": "x=y"}},
		"bad":      {map[string]string{"env-regex": "["}, nil},
	} {
		got, err := info(c.opts).Attributes(nil)
		if (err != nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	got, err := info(map[string]string{"labels": "l", "env": "A"}).Attributes(func(k string) string {
		if k == "l" {
			return ""
		}
		return "_" + k
	})
	if d := cmp.Diff(map[string]string{"_A": "1"}, got); err != nil || d != "" {
		t.Error(d, err)
	}
}
