package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is one thing that is measured: do returns how long the answer was.
type call struct {
	name string
	do   func(ctx context.Context, s *subject, round int) (int64, error)
	runs int // instead of -runs
	many int // calls in a row at each turn; 0 is one
}

func (c *call) burst() int { return max(1, c.many) }

// get is a call that clients make one after the other.
func get(name, path string) call {
	return call{name: name, many: 5, do: func(ctx context.Context, s *subject, _ int) (int64, error) {
		return s.wire.call(ctx, "GET", path, "")
	}}
}

func cli(args ...string) call {
	name := "cli:"
	for _, a := range args {
		name += " " + a
	}
	return call{name: name, runs: 7, do: func(_ context.Context, s *subject, _ int) (int64, error) {
		out, err := s.Output(args...)
		return int64(len(out)), err
	}}
}

// last puts the name of the last container into a path.
func last(what, path string) call {
	c := get(what, "")
	c.do = func(ctx context.Context, s *subject, _ int) (int64, error) {
		return s.wire.call(ctx, "GET", strings.ReplaceAll(path, "LAST", name(s.made-1)), "")
	}
	return c
}

// calls lists what is measured, in the order it is printed.
func calls(noCLI bool) []call {
	list := []call{
		get("ping", "/_ping"),
		get("list running", "/containers/json"),
		get("list all", "/containers/json?all=1"),
		get("list by label", "/containers/json?all=1&"+filters("label", "group=g7")),
		last("list by name", "/containers/json?all=1&"+filters("name", "LAST")),
		get("list by status", "/containers/json?"+filters("status", "running")),
		get("list, the last 10", "/containers/json?limit=10"),
		get("inspect a running one", "/containers/c0/json"),
		last("inspect a created one", "/containers/LAST/json"),
		get("images", "/images/json"),
		get("images by reference", "/images/json?"+filters("reference", "repo0:3")),
		get("inspect an image", "/images/repo0:3/json"),
		{name: "stats, one shot", do: oneShot, runs: 5},
		{name: "stats, first of a stream", do: firstStats, runs: 5},
		get("top", "/containers/c0/top"),
		get("logs, the last 10 lines", "/containers/c0/logs?stdout=1&tail=10"),
		get("disk usage", "/system/df"),
		get("info", "/info"),
		get("version", "/version"),
		{name: "create, then remove", do: createRemove},
		{name: "event to its reader", do: eventLatency(1)},
		{name: "event to the last of 50 readers", do: eventLatency(50), runs: 9},
		{name: "replay of 200 events", do: replay(200)},
	}
	if noCLI {
		return list
	}
	return append(list,
		cli("ps", "-a"), cli("ps", "-a", "--filter", "label=group=g7"), cli("inspect", "c0"), cli("images"),
		cli("logs", "--tail", "10", "c0"), cli("top", "c0"), cli("system", "df"), cli("version"))
}

func oneShot(ctx context.Context, s *subject, _ int) (int64, error) {
	return s.wire.call(ctx, "GET", "/containers/c0/stats?stream=0&one-shot=1", "")
}

// firstStats opens a stream of samples and leaves after the first.
func firstStats(ctx context.Context, s *subject, _ int) (int64, error) {
	resp, err := s.wire.open(ctx, "GET", "/containers/c0/stats", nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	return int64(len(line)), err
}

func createRemove(ctx context.Context, s *subject, _ int) (int64, error) {
	n, err := s.wire.call(ctx, "POST", "/containers/create?name=short", createBody(0))
	if err != nil {
		return n, err
	}
	_, err = s.wire.call(ctx, "DELETE", "/containers/short", "")
	return n, err
}

type message struct {
	Action   string
	TimeNano int64 `json:"timeNano"`
}

// eventLatency lets readers wait for an event. What counts is the time from
// what the event says to when the last of them has it, so the call's own time
// is taken off.
func eventLatency(readers int) func(context.Context, *subject, int) (int64, error) {
	return func(ctx context.Context, s *subject, round int) (int64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type heard struct {
			after time.Duration
			n     int
			err   error
		}
		results := make(chan heard, readers)
		for range readers {
			resp, err := s.wire.open(ctx, "GET", "/events?"+filters("event", "tag"), nil)
			if err != nil {
				return 0, err
			}
			go func() {
				defer func() { _ = resp.Body.Close() }()
				line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
				at := time.Now().UnixNano()
				var m message
				if err == nil {
					err = json.Unmarshal(line, &m)
				}
				results <- heard{time.Duration(at - m.TimeNano), len(line), err}
			}()
		}
		time.Sleep(20 * time.Millisecond) // docker subscribes after its headers are out
		if _, err := s.wire.call(ctx, "POST", "/images/bench/tag?repo=heard&tag="+strconv.Itoa(round%2), ""); err != nil {
			return 0, err
		}
		var last time.Duration
		var bytes int64
		for range readers {
			r := <-results
			if r.err != nil {
				return 0, r.err
			}
			last, bytes = max(last, r.after), bytes+int64(r.n)
		}
		s.took = last
		return bytes, nil
	}
}

// replay reads what happened before: n events, made by renaming.
func replay(n int) func(context.Context, *subject, int) (int64, error) {
	return func(ctx context.Context, s *subject, _ int) (int64, error) {
		if s.since == "" {
			since := time.Now()
			for i := range n {
				if _, err := s.wire.call(ctx, "POST", "/images/bench/tag?repo=replayed&tag="+strconv.Itoa(i%2), ""); err != nil {
					return 0, err
				}
			}
			s.since = stamp(since)
			s.until = stamp(time.Now())
		}
		begin := time.Now()
		resp, err := s.wire.open(ctx, "GET", "/events?since="+url.QueryEscape(s.since)+"&until="+url.QueryEscape(s.until), nil)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		var bytes int64
		got := 0
		for in := bufio.NewScanner(resp.Body); in.Scan(); got++ {
			bytes += int64(len(in.Bytes())) + 1
		}
		s.took = time.Since(begin)
		if got != n {
			return bytes, fmt.Errorf("%d events were replayed, not %d", got, n)
		}
		return bytes, nil
	}
}

func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
