package spec

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestApparmorProfile(t *testing.T) {
	on := HostFacts{AppArmor: true, ApparmorDefault: ApparmorDefault}
	for _, tc := range []struct {
		opt        string
		privileged bool
		host       HostFacts
		want       string
		refused    bool
	}{
		{"", false, on, ApparmorDefault, false},
		{"", true, on, unconfined, false},
		{"apparmor=docker-default", true, on, ApparmorDefault, false},
		{"apparmor=skiff-default", false, on, ApparmorDefault, false},
		{"apparmor=unconfined", false, on, unconfined, false},
		{"apparmor=mine", true, on, "mine", false},
		{"apparmor=two words", false, on, "two words", true},
		{"", false, HostFacts{AppArmor: true}, "", false},
		{"apparmor=docker-default", false, HostFacts{AppArmor: true}, "", false},
		{"apparmor=skiff-default", false, HostFacts{AppArmor: true}, "", true},
		{"", false, HostFacts{}, "", false},
		{"apparmor=unconfined", false, HostFacts{}, "", false},
		{"apparmor=docker-default", false, HostFacts{}, "", false},
		{"apparmor=mine", false, HostFacts{}, "", true},
	} {
		h := &container.HostConfig{Privileged: tc.privileged}
		if tc.opt != "" {
			h.SecurityOpt = []string{tc.opt}
		}
		if got := ApparmorProfile(h, tc.host); got != tc.want {
			t.Errorf("%q, privileged %v, %+v: %q, want %q", tc.opt, tc.privileged, tc.host.ApparmorDefault, got, tc.want)
		}
		o, err := parseSecurityOpts(h.SecurityOpt, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.check(tc.host); (err != nil) != tc.refused || err != nil && errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q on %+v: %v", tc.opt, tc.host, err)
		}
	}
}

func TestApparmorText(t *testing.T) {
	text := ApparmorText()
	for _, line := range []string{
		"profile skiff-default ", "deny mount,",
		"deny /proc/{[^s1-9]*,s,s[^y]*,sy,sy[^s]*,sys?*}/** w,",
		"deny /proc/sys/kernel/{[^s]*,s,s[^h]*,sh,sh[^m]*}{,/**} w,",
		"deny /sys/{[^f]*,f,f[^s]*,fs?*}/** wklx,",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "#include") {
		t.Error("the profile depends on files")
	}
}
