package events

import (
	"context"
	"io"
	"math"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// ErrLagged ends a reader that fell further behind than the bus remembers.
var ErrLagged = errs.New(errs.Unavailable, "events: reader is too slow: events were lost")

// Query says which events a reader wants.
type Query struct {
	// Since starts with the kept events from that time on; zero starts with the
	// next event, or, as docker does, with all kept ones if Until is given.
	Since time.Time
	// Until ends the reader after the events of that time; zero never ends.
	Until   time.Time
	Filters filter.Set
}

// Reader reads events in order. It is for one goroutine, and needs no closing.
type Reader struct {
	bus   *Bus
	at    uint64 // sequence number of the next event to look at
	live  uint64 // from this one on events are new: none may be missed
	query Query
	match matcher
}

// Subscribe returns a reader. Every event published after Subscribe returned
// and accepted by the query will be read; of older ones, those that the bus
// still remembers by then.
func (b *Bus) Subscribe(q Query) (*Reader, error) {
	match, err := newMatcher(q.Filters)
	if err != nil {
		return nil, err
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		return nil, errs.Newf(errs.Invalid, "`since` time (%v) cannot be after `until` time (%v)", q.Since, q.Until)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &Reader{bus: b, at: b.next, live: b.next, query: q, match: match}
	switch {
	case !q.Since.IsZero():
		r.at = b.search(q.Since)
	case !q.Until.IsZero():
		r.at = b.first
	}
	return r, nil
}

// search returns the sequence number of the first event not before t.
func (b *Bus) search(t time.Time) uint64 {
	lo, hi := b.first, b.next
	for lo < hi {
		mid := lo + (hi-lo)/2
		if at(b.ring[mid%uint64(len(b.ring))]).Before(t) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// at is when the event was. Clients may name times that no count of nanoseconds
// reaches: compare with this.
func at(m apievents.Message) time.Time { return time.Unix(0, m.TimeNano) }

// Next waits for the next event. It returns [io.EOF] when the time Until has
// passed, [ErrLagged] when events were lost, or ctx's error. Attributes are
// shared by all readers and must not be changed.
func (r *Reader) Next(ctx context.Context) (apievents.Message, error) {
	for {
		m, wake, err := r.poll()
		switch {
		case err != nil:
			return apievents.Message{}, err
		case wake == nil:
			return m, ctx.Err()
		}
		if err := r.wait(ctx, wake); err != nil {
			return apievents.Message{}, err
		}
	}
}

// poll returns the next wanted event, or else a channel that closes when there
// may be one.
func (r *Reader) poll() (apievents.Message, <-chan struct{}, error) {
	b := r.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	// What is old may be forgotten while it is read.
	if r.at < b.first && b.first <= r.live {
		r.at = b.first
	}
	if r.at < b.first {
		return apievents.Message{}, nil, ErrLagged
	}
	for r.at < b.next {
		m := b.ring[r.at%uint64(len(b.ring))]
		if !r.query.Until.IsZero() && at(m).After(r.query.Until) {
			return apievents.Message{}, nil, io.EOF
		}
		r.at++
		if r.match.include(m) {
			return m, nil, nil
		}
	}
	if !r.query.Until.IsZero() && b.now().After(r.query.Until) {
		return apievents.Message{}, nil, io.EOF
	}
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	return apievents.Message{}, b.wake, nil
}

func (r *Reader) wait(ctx context.Context, wake <-chan struct{}) error {
	r.bus.waiting.Add(1)
	defer r.bus.waiting.Add(-1)
	var end <-chan time.Time
	if !r.query.Until.IsZero() {
		// Later than the end, but not so much that it counts as a time long ago.
		t := time.NewTimer(min(r.query.Until.Sub(r.bus.now()), math.MaxInt64-1) + 1)
		defer t.Stop()
		end = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-end:
	}
	return nil
}

// Each calls f for every event of the query until it ends (nil), f fails, or
// ctx does.
func (b *Bus) Each(ctx context.Context, q Query, f func(apievents.Message) error) error {
	r, err := b.Subscribe(q)
	if err != nil {
		return err
	}
	for {
		m, err := r.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(m)
		}
		if err != nil {
			return err
		}
	}
}
