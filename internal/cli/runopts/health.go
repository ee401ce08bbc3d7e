package runopts

import (
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// healthFlags replace the image's HEALTHCHECK.
type healthFlags struct {
	cmd                                           string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

func (h *healthFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&h.cmd, "health-cmd", "", "Command that checks health")
	fs.DurationVar(&h.interval, "health-interval", 0, "Time between checks (ms|s|m|h)")
	fs.DurationVar(&h.timeout, "health-timeout", 0, "Time a check may take (ms|s|m|h)")
	fs.DurationVar(&h.startPeriod, "health-start-period", 0, "Time to start before failures count (ms|s|m|h)")
	fs.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between checks while starting (ms|s|m|h)")
	fs.IntVar(&h.retries, "health-retries", 0, "Failures in a row that make it unhealthy")
	fs.BoolVar(&h.none, "no-healthcheck", false, "Do not check health, whatever the image says")
}

func (h *healthFlags) apply(_ *pflag.FlagSet, d *Document) error {
	given := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startInterval != 0 || h.retries != 0
	if h.none {
		if given {
			return errors.New("--no-healthcheck conflicts with --health-* options")
		}
		d.Config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !given {
		return nil
	}
	for _, v := range []struct {
		name     string
		negative bool
	}{
		{"interval", h.interval < 0},
		{"timeout", h.timeout < 0},
		{"retries", h.retries < 0},
		{"start-period", h.startPeriod < 0},
		{"start-interval", h.startInterval < 0},
	} {
		if v.negative {
			return fmt.Errorf("--health-%s cannot be negative", v.name)
		}
	}
	hc := &container.HealthConfig{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod,
		StartInterval: h.startInterval, Retries: h.retries,
	}
	if h.cmd != "" {
		hc.Test = []string{"CMD-SHELL", h.cmd}
	}
	d.Config.Healthcheck = hc
	return nil
}
