package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSeccompProfiles(t *testing.T) {
	good := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"}]}`
	for name, tc := range map[string]struct{ text, want string }{
		"good":      {good, ""},
		"empty":     {"", "it is not JSON"},
		"no JSON":   {"{", "it is not JSON"},
		"no action": {"{}", "it has no defaultAction"},
		"null":      {"null", "it has no defaultAction"},
		"unknown":   {`{"defaultAction": "SCMP_ACT_BOGUS"}`, "SCMP_ACT_BOGUS"},
		"too big":   {good + strings.Repeat(" ", maxSeccompProfile), "more than 1048576 bytes"},
	} {
		path := filepath.Join(t.TempDir(), "profile.json")
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := load(t, fmt.Sprintf(`{"seccomp-profile": %q}`, path))
		if tc.want == "" {
			if err != nil || c.seccomp != good || c.SeccompProfile != path {
				t.Errorf("%s: %q %q %v", name, c.seccomp, c.SeccompProfile, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "opening seccomp profile ("+path+") failed") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{"", "builtin", "unconfined"} {
		if c, err := load(t, fmt.Sprintf(`{"seccomp-profile": %q}`, path)); err != nil || c.seccomp != path {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range []string{t.TempDir(), "/no/such/profile.json"} {
		if _, err := load(t, fmt.Sprintf(`{"seccomp-profile": %q}`, path)); err == nil {
			t.Errorf("%s is taken", path)
		}
	}
}

func FuzzSeccompProfile(f *testing.F) {
	f.Add(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}`)
	f.Add(`{"archMap": [{"architecture": "SCMP_ARCH_X86_64"}], "defaultAction": "SCMP_ACT_ERRNO"}`)
	f.Fuzz(func(_ *testing.T, text string) { _ = checkSeccomp(text) })
}
