package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// minMemory is docker's least memory limit: below it nothing starts.
const minMemory = 6 << 20

// ValidateResources checks limits at create or update, and tells which of them
// the host will not enforce.
func ValidateResources(r *container.Resources, host HostFacts, update bool) (warnings []string, err error) {
	for _, check := range []func() ([]string, error){
		func() ([]string, error) { return checkMemory(r, host, update) },
		func() ([]string, error) { return checkCPU(r, host) },
		func() ([]string, error) { return checkCPUSets(r, host) },
		func() ([]string, error) { return checkBlkio(r, host) },
	} {
		w, err := check()
		warnings = append(warnings, w...)
		if err != nil {
			return warnings, errs.With(errs.KindOf(err), err)
		}
	}
	if r.PidsLimit != nil && *r.PidsLimit > 0 && !host.Cgroups.Pids {
		warnings = append(warnings, discarded("PIDs limit capabilities", "PIDs limit"))
	}
	if r.CPUPercent > 0 || r.CPUCount > 0 {
		warnings = append(warnings, "linux does not support CPU percent. Percent discarded.")
	}
	if r.IOMaximumBandwidth != 0 || r.IOMaximumIOps != 0 {
		return warnings, errs.New(errs.Invalid, "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
	}
	return warnings, nil
}

func discarded(what, setting string) string {
	return fmt.Sprintf("Your kernel does not support %s or the cgroup is not mounted. %s discarded.", what, setting)
}

func checkMemory(r *container.Resources, host HostFacts, update bool) (warnings []string, err error) {
	has := host.Cgroups
	switch {
	case r.Memory < 0 || r.Memory != 0 && r.Memory < minMemory:
		return nil, errs.New(errs.Invalid, "Minimum memory limit allowed is 6MB")
	case r.MemorySwap < -1:
		return nil, errs.Newf(errs.Invalid, "invalid memory+swap limit: %d", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return nil, errs.New(errs.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0 && !update:
		return nil, errs.New(errs.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemoryReservation < 0 || r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return nil, errs.New(errs.Invalid, "Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return nil, errs.New(errs.Invalid, "Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if s := r.MemorySwappiness; s != nil && *s != -1 {
		if *s < 0 || *s > 100 {
			return nil, errs.Newf(errs.Invalid, "Invalid value: %v, valid memory swappiness range is 0-100", *s)
		}
		if !has.Swappiness {
			warnings = append(warnings, discarded("memory swappiness capabilities", "Memory swappiness"))
		}
	}
	if r.Memory > 0 && !has.Memory {
		warnings = append(warnings, discarded("memory limit capabilities", "Limitation"))
	} else if r.Memory > 0 && r.MemorySwap != -1 && !has.Swap {
		warnings = append(warnings, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
	}
	if r.MemoryReservation > 0 && !has.Reservation {
		warnings = append(warnings, discarded("memory soft limit capabilities", "Limitation"))
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		if !has.OOMKillDisable {
			warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
		} else if r.Memory == 0 {
			warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	return warnings, nil
}

func checkCPU(r *container.Resources, host HostFacts) (warnings []string, err error) {
	has := host.Cgroups
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return nil, errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return nil, errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs > 0 && !has.CPUQuota:
		return nil, errs.New(errs.Invalid, "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	case r.NanoCPUs < 0 || host.CPUs > 0 && r.NanoCPUs > int64(host.CPUs)*1e9:
		return nil, errs.Newf(errs.Invalid, "range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", host.CPUs)
	case r.CPUShares < 0:
		return nil, errs.Newf(errs.Invalid, "invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
		return nil, errs.New(errs.Invalid, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000 || r.CPUQuota < -1:
		return nil, errs.New(errs.Invalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && !has.CPURealtime:
		return nil, errs.New(errs.Invalid, "kernel does not support CPU real-time scheduler")
	case r.CPURealtimePeriod < 0 || r.CPURealtimeRuntime < 0:
		return nil, errs.Newf(errs.Invalid, "invalid CPU real-time period or runtime (%d, %d): values must be positive", r.CPURealtimePeriod, r.CPURealtimeRuntime)
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return nil, errs.New(errs.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if r.CPUShares > 0 && !has.CPUShares {
		warnings = append(warnings, "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
	}
	if (r.CPUPeriod != 0 || r.CPUQuota != 0) && !has.CPUQuota {
		warnings = append(warnings, "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
	}
	return warnings, nil
}

func checkCPUSets(r *container.Resources, host HostFacts) (warnings []string, err error) {
	if (r.CpusetCpus != "" || r.CpusetMems != "") && !host.Cgroups.CPUSet {
		warnings = append(warnings, discarded("cpuset", "Cpuset"))
	}
	for _, s := range []struct{ asked, have, short, long string }{
		{r.CpusetCpus, host.CPUSet, "cpuset cpus", "CPUs"},
		{r.CpusetMems, host.MemSet, "cpuset mems", "memory nodes"},
	} {
		want, err := parseList(s.asked)
		if err != nil {
			return warnings, errs.Newf(errs.Invalid, "Invalid value %s for %s: %w", s.asked, s.short, err)
		}
		have, err := parseList(s.have)
		if err != nil || s.have == "" {
			continue // not known: the kernel will tell
		}
		for n := range want {
			if !have[n] {
				return warnings, errs.Newf(errs.Invalid, "Requested %s are not available - requested %s, available: %s", s.long, s.asked, s.have)
			}
		}
	}
	return warnings, nil
}

// maxListed bounds what a list like "0-4294967295" makes.
const maxListed = 8192

// parseList parses "0-2,7" into its numbers.
func parseList(s string) (map[int]bool, error) {
	out := map[int]bool{}
	if s == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(lo, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("invalid format: %s", s)
		}
		to := from
		if isRange {
			if to, err = strconv.ParseUint(hi, 10, 32); err != nil || to < from {
				return nil, fmt.Errorf("invalid format: %s", s)
			}
		}
		if to >= maxListed {
			return nil, fmt.Errorf("value is out of range, maximum is %d", maxListed-1)
		}
		for n := from; n <= to; n++ {
			out[int(n)] = true
		}
	}
	return out, nil
}

func checkBlkio(r *container.Resources, host HostFacts) (warnings []string, err error) {
	has := host.Cgroups
	// As docker does: what is discarded may be anything.
	if has.BlkioWeight && r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, errs.New(errs.Invalid, "Range of blkio weight is from 10 to 1000")
	}
	for _, w := range r.BlkioWeightDevice {
		if w == nil || w.Weight != 0 && (w.Weight < 10 || w.Weight > 1000) {
			return nil, errs.New(errs.Invalid, "Range of blkio weight is from 10 to 1000")
		}
	}
	if r.BlkioWeight > 0 && !has.BlkioWeight {
		warnings = append(warnings, discarded("Block I/O weight", "Weight"))
	}
	if len(r.BlkioWeightDevice) > 0 && !has.BlkioWeightDevice {
		warnings = append(warnings, discarded("Block I/O weight_device", "Weight-device"))
	}
	for _, t := range []struct {
		n            int
		what, effect string
	}{
		{len(r.BlkioDeviceReadBps), "BPS Block I/O read limit", "Block I/O BPS read limit"},
		{len(r.BlkioDeviceWriteBps), "BPS Block I/O write limit", "Block I/O BPS write limit"},
		{len(r.BlkioDeviceReadIOps), "IOPS Block read limit", "Block I/O IOPS read limit"},
		{len(r.BlkioDeviceWriteIOps), "IOPS Block write limit", "Block I/O IOPS write limit"},
	} {
		if t.n > 0 && !has.BlkioThrottle {
			warnings = append(warnings, discarded(t.what, t.effect))
		}
	}
	return warnings, nil
}
