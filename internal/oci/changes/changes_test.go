package changes_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci/changes"
)

type config = dockerspec.DockerOCIImageConfig

// made is a configuration with what f sets.
func made(f func(c *config)) config {
	var c config
	if f != nil {
		f(&c)
	}
	return c
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name string
		had  func(c *config)
		list []string
		want func(c *config)
	}{
		{"nothing", nil, nil, nil},
		{"an entrypoint takes the command away", func(c *config) { c.Cmd, c.Entrypoint = []string{"old"}, []string{"/old"} },
			[]string{`ENTRYPOINT ["/e"]`}, func(c *config) { c.Entrypoint = []string{"/e"} }},
		{"but not one set before it", func(c *config) { c.Cmd = []string{"old"} },
			[]string{`CMD ["new"]`, `ENTRYPOINT ["/e"]`}, func(c *config) { c.Cmd, c.Entrypoint = []string{"new"}, []string{"/e"} }},
		{"nor one set after it", func(c *config) { c.Cmd = []string{"old"} },
			[]string{`ENTRYPOINT ["/e"]`, `CMD ["new"]`}, func(c *config) { c.Cmd, c.Entrypoint = []string{"new"}, []string{"/e"} }},
		{"an empty command is none set", func(c *config) { c.Cmd = []string{"old"} },
			[]string{`CMD []`, `ENTRYPOINT ["/e"]`}, func(c *config) { c.Entrypoint = []string{"/e"} }},
		{"shell forms", func(c *config) { c.Shell = []string{"/bin/bash", "-ec"} },
			[]string{"cmd run $HOME me"}, func(c *config) {
				c.Shell, c.Cmd = []string{"/bin/bash", "-ec"}, []string{"/bin/bash", "-ec", "run $HOME me"}
			}},
		{"the usual shell", nil, []string{"ENTRYPOINT run me"}, func(c *config) { c.Entrypoint = []string{"/bin/sh", "-c", "run me"} }},
		{"variables are those of before the line", func(c *config) { c.Env, c.WorkingDir = []string{"A=1", "Z=9"}, "/x" },
			[]string{"ENV A=2 B=$A", "ENV C=${A}-${none:-d} D=\\$A", "WORKDIR $B", "USER u$A", "LABEL l=$C", "VOLUME /v$A", "STOPSIGNAL ${SIG:-SIGINT}"},
			func(c *config) {
				c.Env, c.WorkingDir = []string{"A=2", "Z=9", "B=1", "C=2-d", "D=$A"}, "/x/1"
				c.User, c.Labels, c.Volumes, c.StopSignal = "u2", map[string]string{"l": "2-d"}, map[string]struct{}{"/v2": {}}, "SIGINT"
			}},
		{"quotes and escapes", nil, []string{`ENV A="b c" D=e\ f`, `LABEL "g h"="i" j='k'`, "ENV old form"}, func(c *config) {
			c.Env, c.Labels = []string{"A=b c", "D=e f", "old=form"}, map[string]string{"g h": "i", "j": "k"}
		}},
		{"ports", func(c *config) { c.Env, c.ExposedPorts = []string{"P=81 82/udp"}, map[string]struct{}{"1/tcp": {}} },
			[]string{"EXPOSE 80 $P 90-91/UDP 8080:70"}, func(c *config) {
				c.Env = []string{"P=81 82/udp"}
				c.ExposedPorts = map[string]struct{}{"1/tcp": {}, "80/tcp": {}, "81/tcp": {}, "82/udp": {}, "90/udp": {}, "91/udp": {}, "70/tcp": {}}
			}},
		{"volumes", nil, []string{`VOLUME ["/a b"]`, "VOLUME /c /d"}, func(c *config) {
			c.Volumes = map[string]struct{}{"/a b": {}, "/c": {}, "/d": {}}
		}},
		{"directories", nil, []string{"WORKDIR a", "WORKDIR ../b/", "WORKDIR c"}, func(c *config) { c.WorkingDir = "/b/c" }},
		{"health", nil, []string{"HEALTHCHECK --interval=3s --retries=2 CMD true"}, func(c *config) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "true"}, Interval: 3 * time.Second, Retries: 2}
		}},
		{"no health", nil, []string{"HEALTHCHECK NONE"}, func(c *config) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
		}},
		{"on build", func(c *config) { c.OnBuild = []string{"RUN a"} }, []string{"ONBUILD RUN b $c"}, func(c *config) {
			c.OnBuild = []string{"RUN a", "RUN b $c"}
		}},
		{"lines that go on, and comments", nil, []string{"# hello", "ENV A=1 \\\n  B=2"}, func(c *config) { c.Env = []string{"A=1", "B=2"} }},
		{"another escape", nil, []string{"# escape=`", "ENV A=b` c"}, func(c *config) { c.Env = []string{"A=b c"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := made(c.had)
			if err := changes.Apply(&got, c.list); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(made(c.want), got, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"what is no change", "RUN ls", "RUN is not a valid change command"},
		{"a shell", `SHELL ["/bin/bash"]`, "SHELL is not a valid change command"},
		{"what nobody knows", "nosuch x", "nosuch is not a valid change command"},
		{"a signal", "STOPSIGNAL NOSUCH", "invalid signal: NOSUCH"},
		{"a port", "EXPOSE x", "invalid containerPort: x"},
		{"a port's protocol", "EXPOSE 80/icmp", "invalid proto: icmp"},
		{"a volume", `VOLUME [""]`, "VOLUME specified can not be an empty string"},
		{"a trigger", "ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"},
		{"a variable", "ENV A=${b:z}", `failed to process "${b:z}": unsupported modifier (:z) in substitution`},
		{"a value", "ENV A", "ENV must have two arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := config{}
			before.Env = []string{"A=1"}
			got := before
			err := changes.Apply(&got, []string{"ENV A=2", "LABEL l=m", c.line})
			if err == nil || err.Error() != c.want || !errs.Is(err, errs.Invalid) {
				t.Errorf("%v (%v), want %q", err, errs.KindOf(err), c.want)
			}
			if d := cmp.Diff(before, got); d != "" || before.Env[0] != "A=1" {
				t.Errorf("half of it was done: %s", d)
			}
		})
	}
}

func FuzzApply(f *testing.F) {
	for _, s := range []string{"CMD x", `ENTRYPOINT ["a"]`, "ENV A=$B\nEXPOSE $A", "HEALTHCHECK --interval=1s CMD x", "ONBUILD RUN a", "# escape=`\nENV a=b` c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := config{}
		c.Env = []string{"B=80"}
		if err := changes.Apply(&c, []string{s}); err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%v is no error of the request", err)
		}
	})
}
