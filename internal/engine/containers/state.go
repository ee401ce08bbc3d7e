package containers

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// Phase is where a container is in its life. It is in one at a time.
type Phase string

// The phases, with docker's names for them.
const (
	Created    Phase = "created"
	Running    Phase = "running"
	Paused     Phase = "paused"
	Restarting Phase = "restarting" // ended, and waits for its restart policy's delay
	Exited     Phase = "exited"
	Removing   Phase = "removing"
	Dead       Phase = "dead" // could not be removed
)

// mayBecome is the transition table.
func (p Phase) mayBecome(to Phase) bool {
	switch p {
	case Created:
		return to == Running || to == Removing
	case Running:
		return to == Paused || to == Restarting || to == Exited
	case Paused:
		return to == Running || to == Restarting || to == Exited
	case Restarting:
		return to == Running || to == Exited
	case Exited:
		return to == Running || to == Removing
	case Removing:
		return to == Dead
	case Dead:
		return to == Removing
	}
	return false
}

// live reports whether it has processes.
func (p Phase) live() bool { return p == Running || p == Paused }

// active reports what docker calls running: live, or about to be again.
func (p Phase) active() bool { return p.live() || p == Restarting }

// Status is a container's condition: kept with its run-time state, and, without
// the process id, in its record.
type Status struct {
	Phase      Phase     `json:"phase"`
	PID        int       `json:"pid,omitempty"`
	StartTicks uint64    `json:"startTicks,omitempty"` // with PID: no other process has both
	ExitCode   int       `json:"exitCode,omitempty"`
	Error      string    `json:"error,omitempty"` // why the last start or removal failed
	OOM        bool      `json:"oom,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// Stopped says that a person ended it: restart policies keep quiet.
	Stopped  bool `json:"stopped,omitempty"`
	Restarts int  `json:"restarts,omitempty"` // by its policy, since the last start by a person
	// Passing says that it is paused for something that ends with the daemon.
	Passing bool `json:"passing,omitempty"`
	// Starting is set while a start is under way, so that one cut short is known.
	Starting bool `json:"starting,omitempty"`
}

// become changes the phase. A change the table does not have is a mistake in
// this package, so it panics rather than corrupt what others see.
func (s *Status) become(p Phase) {
	if !s.Phase.mayBecome(p) {
		panic(fmt.Sprintf("containers: no way from %s to %s", s.Phase, p))
	}
	s.Phase = p
}

func (s *Status) started(pid int, ticks uint64, at time.Time) {
	s.become(Running)
	s.PID, s.StartTicks, s.StartedAt = pid, ticks, at.UTC()
	s.ExitCode, s.Error, s.OOM, s.Starting, s.Passing = 0, "", false, false, false
}

// ended records an exit; to is Exited or Restarting.
func (s *Status) ended(to Phase, code int, oom bool, at time.Time) {
	s.become(to)
	s.Passing = false
	s.PID, s.StartTicks, s.ExitCode, s.OOM, s.FinishedAt = 0, 0, code, oom, at.UTC()
}

// neverStarted tells a failed first start from an exit.
func (s *Status) neverStarted() bool { return s.StartedAt.IsZero() }

// text is the STATUS column of a list.
func (s *Status) text(h *container.Health, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch s.Phase {
	case Running:
		up := "Up " + ago(s.StartedAt)
		switch {
		case h == nil || h.Status == container.NoHealthcheck:
			return up
		case h.Status == container.Starting:
			return up + " (health: starting)"
		}
		return up + " (" + string(h.Status) + ")"
	case Paused:
		return "Up " + ago(s.StartedAt) + " (Paused)"
	case Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case Removing:
		return "Removal In Progress"
	case Dead:
		return "Dead"
	case Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case Created:
		return "Created"
	}
	return ""
}
