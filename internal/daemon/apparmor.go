package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// loadApparmor gives the kernel the default profile and returns its name; ""
// where AppArmor is not enabled or has no parser: containers are then confined
// by everything else.
func loadApparmor(ctx context.Context, log *slog.Logger) string {
	if data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || !strings.HasPrefix(string(data), "Y") {
		return ""
	}
	err := parseProfile(ctx, spec.ApparmorText())
	if err == nil {
		return spec.ApparmorDefault
	}
	// One that somebody else loaded does as well.
	if loaded, rerr := os.ReadFile("/sys/kernel/security/apparmor/profiles"); rerr == nil {
		for line := range strings.Lines(string(loaded)) {
			if strings.HasPrefix(line, spec.ApparmorDefault+" ") {
				log.WarnContext(ctx, "the AppArmor profile is an older one", "profile", spec.ApparmorDefault, "err", err)
				return spec.ApparmorDefault
			}
		}
	}
	log.WarnContext(ctx, "containers run without an AppArmor profile", "profile", spec.ApparmorDefault, "err", err)
	return ""
}

func parseProfile(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		if parser, err = exec.LookPath("/usr/sbin/apparmor_parser"); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache", "--quiet")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apparmor_parser: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
