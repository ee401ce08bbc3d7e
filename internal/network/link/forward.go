package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const conf6 = "net/ipv6/conf/"

// HasIPv6 reports whether the calling thread's namespace speaks IPv6 at all.
func HasIPv6() bool {
	_, err := os.Stat("/proc/sys/" + conf6 + "all")
	return err == nil
}

// Forwards reports whether the host forwards packets of a family.
func Forwards(v6 bool) (bool, error) {
	knob := "net/ipv4/ip_forward"
	if v6 {
		knob = conf6 + "all/forwarding"
	}
	now, err := readSysctl(knob)
	return now != "0", err
}

// Forward4 makes the host forward IPv4.
func Forward4() error {
	if err := WriteSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("let the host forward packets: %w", err)
	}
	return nil
}

// Forward6 makes the host forward IPv6, and leaves its interfaces what they were.
// The kernel's switch makes routers of all of them: they would stop listening to
// the routers that the host has its own address and default route from, and
// forget these at once. So they listen even as routers while the switch is
// turned, and are hosts again after that: packets are forwarded between them all
// the same.
func Forward6() error {
	dirs, err := filepath.Glob("/proc/sys/" + conf6 + "*")
	if err != nil {
		return err
	}
	var back []func() error
	set := func(path, value, was string) error {
		if err := WriteSysctl(path, value); err != nil {
			return err
		}
		back = append(back, func() error { return WriteSysctl(path, was) })
		return nil
	}
	for _, d := range dirs {
		name := filepath.Base(d)
		path := conf6 + name + "/"
		forwards, err := readSysctl(path + "forwarding")
		if err != nil || forwards != "0" || name == "all" {
			continue // an interface that just went, or a router already
		}
		back = append(back, func() error { return WriteSysctl(path+"forwarding", "0") })
		if ra, err := readSysctl(path + "accept_ra"); err == nil && ra == "1" {
			if err := set(path+"accept_ra", "2", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	bad := []error{WriteSysctl(conf6+"all/forwarding", "1")}
	for _, f := range back {
		if err := f(); err != nil && !errors.Is(err, os.ErrNotExist) {
			bad = append(bad, err)
		}
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("let the host forward packets of IPv6: %w", err)
	}
	return nil
}

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b)), err
}
