package containers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

// NewCgroups reads and sets the host's control groups.
func NewCgroups(sys *cgroup.System) Cgroups { return hostCgroups{sys, sys.OOMWatcher()} }

type hostCgroups struct {
	sys *cgroup.System
	oom *cgroup.OOMWatcher
}

func (h hostCgroups) WatchOOM(path string, known bool, tell func()) (stop func(), err error) {
	g, err := h.sys.Open(path)
	if err != nil {
		return nil, err
	}
	w, err := h.oom.Watch(g, known, tell)
	return w.Stop, err
}

func (h hostCgroups) Stats(path string) (*cgroup.Stats, error) {
	g, err := h.sys.Open(path)
	if err != nil {
		return nil, err
	}
	return g.Stats()
}

func (h hostCgroups) GiveRealtime(parent string, period, runtime int64) error {
	return h.sys.GiveRealtime(parent, period, runtime)
}

const statsInterval = time.Second

// Stats samples what a container uses.
func (s *Service) Stats(ctx context.Context, id string, stream, oneShot bool, each func(*container.StatsResponse) error) error {
	c, err := s.index.get(id)
	if err != nil {
		return err
	}
	if !c.status().Phase.live() && !stream {
		return each(s.emptyStats(c))
	}
	prev, err := s.sample(c)
	if err != nil {
		return err
	}
	// Docker's streams begin at once, with a sample that has none before it.
	if oneShot || stream {
		if err := each(prev); err != nil || !stream {
			return err
		}
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.index.exact(c.id) == nil {
			return nil
		}
		now, err := s.sample(c)
		if err != nil {
			return err
		}
		now.PreRead, now.PreCPUStats = prev.Read, prev.CPUStats
		if err := each(now); err != nil {
			return err
		}
		if !stream {
			return nil
		}
		prev = now
	}
}

func (s *Service) emptyStats(c *ctr) *container.StatsResponse {
	return &container.StatsResponse{ID: c.id, Name: "/" + c.name(), OSType: "linux"}
}

// sample takes one; of a container that does not run it is empty.
func (s *Service) sample(c *ctr) (*container.StatsResponse, error) {
	v := c.look()
	out := s.emptyStats(c)
	if !v.st.Phase.live() {
		return out, nil
	}
	st, err := s.o.Cgroups.Stats(spec.CgroupPath(v.rec.HostConfig, s.spec().CgroupParent, c.id))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil // it ended just now
	}
	if err != nil {
		return nil, err
	}
	out.Read = s.now()
	fillStats(out, st, s.spec().Host.CgroupV2)
	if out.CPUStats.SystemUsage, out.CPUStats.OnlineCPUs, err = systemCPU(); err != nil {
		return nil, err
	}
	if total := totalMemory(); out.MemoryStats.Limit > total {
		out.MemoryStats.Limit = total
	}
	if !v.rec.Config.NetworkDisabled {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", v.st.PID))
		if err == nil {
			out.Networks = parseNetDev(data, s.interfaces(&v.rec))
		}
	}
	return out, nil
}

// fillStats gives a group's counters docker's form.
func fillStats(out *container.StatsResponse, st *cgroup.Stats, v2 bool) {
	cpu := &out.CPUStats
	cpu.CPUUsage.TotalUsage = uint64(st.CPU.Total)
	cpu.CPUUsage.UsageInUsermode = uint64(st.CPU.User)
	cpu.CPUUsage.UsageInKernelmode = uint64(st.CPU.System)
	for _, d := range st.CPU.PerCPU {
		cpu.CPUUsage.PercpuUsage = append(cpu.CPUUsage.PercpuUsage, uint64(d))
	}
	cpu.ThrottlingData = container.ThrottlingData{
		Periods: st.CPU.Periods, ThrottledPeriods: st.CPU.ThrottledPeriods, ThrottledTime: uint64(st.CPU.Throttled),
	}
	out.MemoryStats = container.MemoryStats{
		Usage: st.Memory.Usage, Limit: st.Memory.Limit, Failcnt: st.Memory.Failures, Stats: st.Memory.Detail,
	}
	if !v2 {
		out.MemoryStats.MaxUsage = st.Memory.Max
	}
	out.PidsStats.Current = st.PIDs.Current
	if st.PIDs.Limit != math.MaxUint64 {
		out.PidsStats.Limit = st.PIDs.Limit
	}
	if !v2 { // no controller of version 1 is without its list, though most are empty, as docker's
		none := []container.BlkioStatEntry{}
		out.BlkioStats = container.BlkioStats{
			IoServiceBytesRecursive: none, IoServicedRecursive: none, IoQueuedRecursive: none, IoServiceTimeRecursive: none,
			IoWaitTimeRecursive: none, IoMergedRecursive: none, IoTimeRecursive: none, SectorsRecursive: none,
		}
	}
	for _, io := range st.IO {
		e := container.BlkioStatEntry{Major: io.Major, Minor: io.Minor, Op: io.Op, Value: io.Bytes}
		out.BlkioStats.IoServiceBytesRecursive = append(out.BlkioStats.IoServiceBytesRecursive, e)
		if !v2 {
			e.Value = io.Count
			out.BlkioStats.IoServicedRecursive = append(out.BlkioStats.IoServicedRecursive, e)
		}
	}
}

// parseNetDev reads the interfaces of these names from /proc/PID/net/dev.
func parseNetDev(data []byte, names []string) map[string]container.NetworkStats {
	out := map[string]container.NetworkStats{}
	for line := range strings.Lines(string(data)) {
		name, counters, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(counters)
		if !ok || len(f) < 16 || !slices.Contains(names, name) {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(f[i], 10, 64)
			return v
		}
		out[name] = container.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}

func systemCPU() (usage uint64, cpus uint32, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	usage, cpus = parseSystemCPU(data)
	return usage, cpus, nil
}

// parseSystemCPU sums the host's processor time, in nanoseconds, and counts the
// processors, from /proc/stat.
func parseSystemCPU(data []byte) (usage uint64, cpus uint32) {
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 8 || !strings.HasPrefix(f[0], "cpu") {
			break // they come first
		}
		if f[0] != "cpu" {
			cpus++
			continue
		}
		for _, v := range f[1:8] {
			n, _ := strconv.ParseUint(v, 10, 64)
			usage += n * uint64(time.Second/100) // USER_HZ
		}
	}
	return usage, cpus
}

func totalMemory() uint64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxUint64
	}
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "MemTotal:" {
		return math.MaxUint64
	}
	kb, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return kb << 10
}
