package containers

import (
	"context"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// Update changes limits and restart policy, of a running container too.
func (s *Service) Update(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error) {
	none := container.UpdateResponse{Warnings: []string{}}
	if u.RestartPolicy.Name != "" || u.RestartPolicy.MaximumRetryCount != 0 {
		if err := container.ValidateRestartPolicy(u.RestartPolicy); err != nil {
			return none, errs.With(errs.Invalid, err)
		}
	}
	if err := checkFixed(&u.Resources); err != nil {
		return none, err
	}
	warnings, err := spec.ValidateResources(&u.Resources, s.spec().Host, true)
	if err != nil {
		return none, err
	}
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return none, err
	}
	defer done()
	if err := s.update(context.WithoutCancel(ctx), c, u); err != nil {
		return none, errs.Newf(errs.KindOf(err), "Cannot update container %s: %w", c.id, err)
	}
	rec := c.record()
	s.event(&rec, apievents.ActionUpdate, nil)
	return container.UpdateResponse{Warnings: append([]string{}, warnings...)}, nil
}

// update applies to the running container first: what the kernel refuses is not
// recorded. The caller has the turn.
func (s *Service) update(ctx context.Context, c *ctr, u container.UpdateConfig) error {
	c.mu.Lock()
	phase, before := c.st.Phase, c.rec.HostConfig
	c.mu.Unlock()
	if phase == Removing || phase == Dead {
		return errs.New(errs.Conflict, `container is marked for removal and cannot be "update"`)
	}
	after, err := updated(before, u)
	if err != nil {
		return err
	}
	if phase.live() {
		r, err := spec.Resources(&after.Resources, s.spec().Host)
		if err != nil {
			return err
		}
		if err := s.o.Runtime.Update(ctx, c.id, r); err != nil {
			return err
		}
	}
	set := func(h *container.HostConfig) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rec.HostConfig = h
	}
	set(after)
	if err := s.saveRecord(c); err != nil {
		set(before)
		return err
	}
	if !after.RestartPolicy.IsSame(&before.RestartPolicy) && after.RestartPolicy.IsNone() {
		s.giveUp(ctx, c)
	}
	return nil
}

// checkFixed refuses what is settled when a container is made. Docker lets it
// pass, and does nothing.
func checkFixed(r *container.Resources) error {
	for name, given := range map[string]bool{
		"CgroupParent": r.CgroupParent != "", "Devices": len(r.Devices) > 0, "DeviceCgroupRules": len(r.DeviceCgroupRules) > 0,
		"DeviceRequests": len(r.DeviceRequests) > 0, "MemorySwappiness": r.MemorySwappiness != nil && *r.MemorySwappiness != -1,
		"OomKillDisable": r.OomKillDisable != nil && *r.OomKillDisable, "Ulimits": len(r.Ulimits) > 0,
	} {
		if given {
			return errs.Newf(errs.Unsupported, "%s of a container cannot be updated", name)
		}
	}
	return nil
}

// updated is a host configuration with the wanted changes.
func updated(h *container.HostConfig, u container.UpdateConfig) (*container.HostConfig, error) {
	out := *h
	r, w := &out.Resources, &u.Resources
	conflict := func(text string) (*container.HostConfig, error) { return nil, errs.New(errs.Conflict, text) }
	switch {
	case w.NanoCPUs > 0 && r.CPUPeriod > 0:
		return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case w.NanoCPUs > 0 && r.CPUQuota > 0:
		return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	case w.CPUPeriod > 0 && r.NanoCPUs > 0:
		return conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case w.CPUQuota > 0 && r.NanoCPUs > 0:
		return conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case w.Memory != 0 && w.MemorySwap == 0 && w.Memory > r.MemorySwap && r.MemorySwap >= 0:
		return conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	case u.RestartPolicy.Name != "" && h.AutoRemove && !u.RestartPolicy.IsNone():
		return conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	change(&r.BlkioWeight, w.BlkioWeight)
	change(&r.CPUShares, w.CPUShares)
	change(&r.NanoCPUs, w.NanoCPUs)
	change(&r.CPUPeriod, w.CPUPeriod)
	change(&r.CPUQuota, w.CPUQuota)
	change(&r.CPURealtimePeriod, w.CPURealtimePeriod)
	change(&r.CPURealtimeRuntime, w.CPURealtimeRuntime)
	change(&r.CpusetCpus, w.CpusetCpus)
	change(&r.CpusetMems, w.CpusetMems)
	change(&r.Memory, w.Memory)
	change(&r.MemorySwap, w.MemorySwap)
	change(&r.MemoryReservation, w.MemoryReservation)
	changeList(&r.BlkioWeightDevice, w.BlkioWeightDevice)
	changeList(&r.BlkioDeviceReadBps, w.BlkioDeviceReadBps)
	changeList(&r.BlkioDeviceWriteBps, w.BlkioDeviceWriteBps)
	changeList(&r.BlkioDeviceReadIOps, w.BlkioDeviceReadIOps)
	changeList(&r.BlkioDeviceWriteIOps, w.BlkioDeviceWriteIOps)
	if w.PidsLimit != nil {
		limit := max(*w.PidsLimit, 0)
		r.PidsLimit = &limit
	}
	if u.RestartPolicy.Name != "" {
		out.RestartPolicy = u.RestartPolicy
	}
	return &out, nil
}

func change[T comparable](p *T, v T) {
	var zero T
	if v != zero {
		*p = v
	}
}

func changeList[T any](p *[]T, v []T) {
	if v != nil {
		*p = v
	}
}
