package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The events that part a start into stages, as the kernel traces them: a
// handful of points, so that what is measured hardly changes.
const (
	events = "sched/sched_process_fork sched/sched_process_exec sched/sched_process_exit " +
		"syscalls/sys_enter_mkdirat syscalls/sys_enter_fsopen syscalls/sys_enter_pivot_root syscalls/sys_enter_seccomp"
	tracefs = "/sys/kernel/tracing"
)

var stageNames = []string{
	"request read, group's profile", "groups, limits, streams", "clone, exec of the launcher", "its runtime starts, request",
	"mounts, devices, masks", "pivot, identity, limits", "seccomp, capabilities, exec", "the command itself", "exit reaped, told",
}

// stages prints where the time of a start goes, medians.
func (s *shimBench) stages(ctx context.Context) error {
	t, err := newTrace(s.pid)
	if err != nil {
		fmt.Printf("\nskipping the stages: %v\n", err)
		return nil
	}
	defer t.close()
	hot, all, err := s.traced(ctx, t, s.runs, 0)
	if err != nil {
		return err
	}
	idle, alone, err := s.traced(ctx, t, s.isolated, s.gap)
	if err != nil {
		return err
	}
	fmt.Printf("\n%-34s%16s%16s\n", "stages inside the shim, median", "back to back", "isolated")
	for i, name := range stageNames {
		fmt.Printf("%-34s%13.2f ms%13.2f ms\n", name, hot[i].median(), idle[i].median())
	}
	fmt.Printf("%-34s%13.2f ms%13.2f ms\n", "all, to the exit seen, traced", all.median(), alone.median())
	return nil
}

// traced starts containers and returns what each stage took.
func (s *shimBench) traced(ctx context.Context, t *trace, runs int, gap time.Duration) (times []samples, total samples, err error) {
	times = make([]samples, len(stageNames))
	for range runs {
		time.Sleep(gap)
		if err := t.clear(s.pid); err != nil {
			return nil, nil, err
		}
		from := monotonic()
		_, ended, err := s.start(ctx, 0)
		if err != nil {
			return nil, nil, err
		}
		marks, err := t.marks()
		if err != nil {
			return nil, nil, err
		}
		if marks == nil { // events were lost
			continue
		}
		last := from
		for i, m := range append(marks, from+ended) {
			times[i] = append(times[i], m-last)
			last = m
		}
		total = append(total, ended)
	}
	return times, total, nil
}

// monotonic is the clock of the trace.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// A trace is a buffer of the kernel's own, with this program's events only.
type trace struct{ dir string }

func newTrace(pid int) (*trace, error) {
	t := &trace{filepath.Join(tracefs, "instances", "skiff-bench-"+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the kernel's tracing: %w", err)
	}
	err := errors.Join(t.write("trace_clock", "mono"), t.write("options/event-fork", "1"), t.clear(pid))
	for e := range strings.FieldsSeq(events) {
		err = errors.Join(err, t.write("events/"+e+"/enable", "1"))
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *trace) write(file, text string) error {
	return os.WriteFile(filepath.Join(t.dir, file), []byte(text), 0o600)
}

// clear empties the buffer and follows the shim's threads, and theirs.
func (t *trace) clear(pid int) error {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	var ids []string
	for _, e := range threads {
		ids = append(ids, e.Name())
	}
	return errors.Join(t.write("set_event_pid", strings.Join(ids, " ")), t.write("trace", ""))
}

func (t *trace) close() {
	_ = t.write("tracing_on", "0")
	_ = os.Remove(t.dir)
}

var eventLine = regexp.MustCompile(`^\s*.*-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+)(.*)$`)

// marks are the ends of all stages but the last; nil if one is missing.
func (t *trace) marks() ([]time.Duration, error) {
	f, err := os.Open(filepath.Join(t.dir, "trace"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	type event struct {
		pid, name, rest string
		at              time.Duration
	}
	var all []event
	child := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := eventLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		sec, _ := strconv.ParseInt(m[2], 10, 64)
		us, _ := strconv.ParseInt(m[3], 10, 64)
		e := event{m[1], m[4], m[5], time.Duration(sec)*time.Second + time.Duration(us)*time.Microsecond}
		if e.name == "sched_process_exec" && child == "" {
			child = e.pid
		}
		all = append(all, e)
	}
	// In this order; the shim's events come before there is a child.
	want := []string{"sys_mkdirat", "sched_process_fork", "sched_process_exec", "sys_fsopen", "sys_pivot_root", "sys_seccomp", "sched_process_exec", "sched_process_exit"}
	var marks []time.Duration
	for _, e := range all {
		if len(marks) == len(want) || !strings.HasPrefix(e.name, want[len(marks)]) {
			continue
		}
		switch len(marks) {
		case 0:
		case 1:
			if !strings.Contains(e.rest, "child_pid="+child) {
				continue
			}
		default:
			if e.pid != child {
				continue
			}
		}
		marks = append(marks, e.at)
	}
	if len(marks) < len(want) {
		return nil, nil
	}
	return marks, nil
}
