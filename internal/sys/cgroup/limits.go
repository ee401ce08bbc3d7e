//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Apply sets the limits that r names and leaves the others as they are, and the
// devices, which are for [Group.LimitDevices]. The limit of processes is left to [Group.LimitPIDs] if laterPIDs is set.
func (g *Group) Apply(r *specs.LinuxResources, laterPIDs bool) error {
	if r == nil {
		return nil
	}
	w := &writer{g: g}
	if g.scope != nil {
		w.err = g.tellSystemd(r, laterPIDs)
	}
	if g.sys.Unified() {
		w.v2(r)
	} else {
		w.v1(r)
	}
	if p := PIDs(r); !laterPIDs && p != nil {
		w.err = errors.Join(w.err, g.LimitPIDs(p))
	}
	if w.err != nil {
		return fmt.Errorf("limits of control group %s: %w", g.path, w.err)
	}
	return nil
}

// LimitPIDs sets how many processes and threads the group may have.
func (g *Group) LimitPIDs(p *specs.LinuxPids) error {
	file, value := g.PIDsFile(p)
	if file == "" {
		return nil
	}
	if g.scope != nil {
		if err := g.setProperties(*g.tasksMax(p)); err != nil {
			return err
		}
	}
	i := strings.LastIndexByte(file, '/')
	return write(file[:i], file[i+1:], value)
}

const pidsMax = "pids.max"

// PIDs is the limit of processes, which may be said in two ways.
func PIDs(r *specs.LinuxResources) *specs.LinuxPids {
	if r == nil {
		return nil
	}
	text, ok := r.Unified[pidsMax]
	if !ok {
		return r.Pids
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil { // max
		n = -1
	}
	return &specs.LinuxPids{Limit: &n}
}

// PIDsFile is the control file of the limit of processes and what is to be
// written to it; "" if there is nothing to limit.
func (g *Group) PIDsFile(p *specs.LinuxPids) (file, value string) {
	if p == nil || p.Limit == nil {
		return "", ""
	}
	dir := g.dir("pids")
	switch {
	case dir == "":
		return "", ""
	case *p.Limit < 0:
		return dir + "/" + pidsMax, "max"
	case *p.Limit == 0 && g.scope != nil: // systemd knows no such limit: as good as it
		return dir + "/" + pidsMax, "1"
	}
	return dir + "/" + pidsMax, strconv.FormatInt(*p.Limit, 10)
}

// writer writes control files until the first error.
type writer struct {
	g   *Group
	err error
}

func (w *writer) set(controller, file string, values ...string) {
	if w.err != nil || len(values) == 0 {
		return
	}
	dir := w.g.dir(controller)
	if dir == "" {
		w.err = fmt.Errorf("controller %s is not mounted, for %s=%s", controller, file, values[0])
		return
	}
	w.err = write(dir, file, values...)
}

func (w *writer) int(controller, file string, v *int64) {
	if v != nil && *v != 0 {
		w.set(controller, file, strconv.FormatInt(*v, 10))
	}
}

func (w *writer) uint(controller, file string, v *uint64) {
	if v != nil && *v != 0 {
		w.set(controller, file, strconv.FormatUint(*v, 10))
	}
}

// exactInt writes a number of which 0 is one like others.
func (w *writer) exactInt(controller, file string, v *int64) {
	if v != nil {
		w.set(controller, file, strconv.FormatInt(*v, 10))
	}
}

// burst writes the quota and how much of it may be saved up, which can never be
// more: what is lowered below the other one's old value has to wait.
func (w *writer) burst(file string, c *specs.LinuxCPU, quota func()) {
	write := func() {
		if c.Burst != nil {
			w.set("cpu", file, strconv.FormatUint(*c.Burst, 10))
		}
	}
	if w.err != nil {
		return
	}
	quota()
	if !errors.Is(w.err, unix.EINVAL) || c.Burst == nil {
		write()
		return
	}
	refused := w.err
	w.err = nil
	if write(); w.err != nil {
		w.err = refused
		return
	}
	quota()
}

// hugepages limits what is reserved, where the kernel counts that, as well as
// what is used.
func (w *writer) hugepages(limits []specs.LinuxHugepageLimit, suffix string) {
	for _, h := range limits {
		value := strconv.FormatUint(h.Limit, 10)
		w.set("hugetlb", "hugetlb."+h.Pagesize+"."+suffix, value)
		if w.err != nil {
			return
		}
		reserved := "hugetlb." + h.Pagesize + ".rsvd." + suffix
		if _, err := read(w.g.dir("hugetlb"), reserved); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		w.set("hugetlb", reserved, value)
	}
}

func (w *writer) rdma(limits map[string]specs.LinuxRdma) {
	for dev, l := range limits {
		var parts []string
		if l.HcaHandles != nil {
			parts = append(parts, fmt.Sprintf("hca_handle=%d", *l.HcaHandles))
		}
		if l.HcaObjects != nil {
			parts = append(parts, fmt.Sprintf("hca_object=%d", *l.HcaObjects))
		}
		w.set("rdma", "rdma.max", dev+" "+strings.Join(parts, " "))
	}
}

func (w *writer) v1(r *specs.LinuxResources) {
	if len(r.Unified) > 0 {
		w.err = errors.New("unified limits need control groups of version 2")
		return
	}
	w.memoryV1(r.Memory)
	w.cpuV1(r.CPU)
	w.blkioV1(r.BlockIO)
	w.hugepages(r.HugepageLimits, "limit_in_bytes")
	if n := r.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			w.set("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
		}
		for _, p := range n.Priorities {
			w.set("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	w.rdma(r.Rdma)
}

func (w *writer) memoryV1(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	const limit, memsw = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	grow := false
	if m.Swap != nil && *m.Swap != 0 && m.Limit != nil {
		// The sum may never be below the memory: raise it first, lower it last.
		now, err := read(w.g.dir("memory"), memsw)
		if errors.Is(err, fs.ErrNotExist) {
			m = withoutSwap(m) // no swap accounting: the engine has warned of that
		} else {
			cur, perr := strconv.ParseInt(now, 10, 64)
			grow = *m.Swap == -1 || perr == nil && *m.Limit > cur
		}
	}
	if grow {
		w.int("memory", memsw, m.Swap)
	}
	w.int("memory", limit, m.Limit)
	if !grow {
		w.int("memory", memsw, m.Swap)
	}
	w.int("memory", "memory.soft_limit_in_bytes", m.Reservation)
	w.int("memory", "memory.kmem.tcp.limit_in_bytes", m.KernelTCP)
	if m.Swappiness != nil {
		w.set("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		w.set("memory", "memory.oom_control", "1")
	}
	if w.err != nil && errors.Is(w.err, unix.EBUSY) {
		w.err = fmt.Errorf("%w (the limit is below what is in use)", w.err)
	}
}

func withoutSwap(m *specs.LinuxMemory) *specs.LinuxMemory {
	c := *m
	c.Swap = nil
	return &c
}

func (w *writer) cpuV1(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	w.exactInt("cpu", "cpu.idle", c.Idle)
	if idle := c.Idle != nil && *c.Idle == 1; !idle { // whose weight is fixed
		w.uint("cpu", "cpu.shares", c.Shares)
	}
	w.burst("cpu.cfs_burst_us", c, func() {
		w.uint("cpu", "cpu.cfs_period_us", c.Period)
		short := errors.Is(w.err, unix.EINVAL) && c.Quota != nil && *c.Quota != 0
		if short { // for the quota that was
			w.err = nil
		}
		w.int("cpu", "cpu.cfs_quota_us", c.Quota)
		if short {
			w.uint("cpu", "cpu.cfs_period_us", c.Period)
		}
	})
	w.realtime(c)
	if c.Cpus != "" {
		w.set("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		w.set("cpuset", "cpuset.mems", c.Mems)
	}
}

func (w *writer) blkioV1(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	prefix := "blkio."
	if _, err := read(w.g.dir("blkio"), "blkio.weight"); err != nil {
		prefix = "blkio.bfq."
	}
	if b.Weight != nil && *b.Weight != 0 {
		w.set("blkio", prefix+"weight", strconv.Itoa(int(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		w.set("blkio", "blkio.leaf_weight", strconv.Itoa(int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			w.set("blkio", prefix+"weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
		if d.LeafWeight != nil {
			w.set("blkio", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight))
		}
	}
	throttle := func(file string, list []specs.LinuxThrottleDevice) {
		for _, d := range list {
			w.set("blkio", "blkio.throttle."+file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
	throttle("read_bps_device", b.ThrottleReadBpsDevice)
	throttle("write_bps_device", b.ThrottleWriteBpsDevice)
	throttle("read_iops_device", b.ThrottleReadIOPSDevice)
	throttle("write_iops_device", b.ThrottleWriteIOPSDevice)
}
