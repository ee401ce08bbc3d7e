// Package events tells what happens in the engine to whoever listens.
//
// The bus keeps the newest events in one ring. A reader is only a position in
// it, so readers cost no memory and publishing never waits for them:
//
//	bus.Publish(apievents.ContainerEventType, apievents.ActionStart, id, attrs)
//
//	r, err := bus.Subscribe(events.Query{Filters: f})
//	for {
//		m, err := r.Next(ctx) // io.EOF after Query.Until, ErrLagged when too slow
//	}
package events

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

// How much history is kept: whichever limit is reached first. Docker keeps 256
// events.
const (
	maxEvents = 4096
	maxBytes  = 8 << 20
)

// Bus carries events from the services to their readers.
type Bus struct {
	mu    sync.Mutex
	ring  []apievents.Message // ring[seq%len] holds event seq; grows up to maxEvents
	first uint64              // sequence number of the oldest event kept
	next  uint64              // sequence number of the event to come
	bytes int                 // about what the kept events weigh
	last  int64               // TimeNano of the newest event
	wake  chan struct{}       // closed at the next event; nil while nobody waits
	now   func() time.Time    // constant after New

	waiting atomic.Int32 // readers that wait for the next event
}

// Listeners returns how many readers wait for an event now.
func (b *Bus) Listeners() int { return int(b.waiting.Load()) }

// Published returns how many events there have been.
func (b *Bus) Published() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next
}

// New returns an empty bus.
func New() *Bus { return &Bus{now: time.Now} }

// Publish tells all readers that action happened to the object id. It never
// blocks. TimeNano of events is strictly increasing. Actions with a detail are
// written as docker does: "exec_create: sh", "health_status: healthy"; see
// [WithDetail].
func (b *Bus) Publish(t apievents.Type, a apievents.Action, id string, attrs map[string]string) {
	b.publish(apievents.Message{
		Type:   t,
		Action: a,
		Actor:  apievents.Actor{ID: id, Attributes: maps.Clone(attrs)},
		Scope:  "local",
	})
}

// WithDetail returns the action in the form "action: detail".
func WithDetail(a apievents.Action, detail string) apievents.Action {
	return a + ": " + apievents.Action(detail)
}

func (b *Bus) publish(m apievents.Message) {
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m.TimeNano = max(b.now().UnixNano(), b.last+1)
	m.Time = m.TimeNano / int64(time.Second)
	b.last = m.TimeNano
	b.append(m)
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
}

func (b *Bus) append(m apievents.Message) {
	if n := int(b.next - b.first); n == len(b.ring) {
		if n < maxEvents {
			b.grow()
		} else {
			b.drop()
		}
	}
	b.ring[b.next%uint64(len(b.ring))] = m
	b.next++
	b.bytes += weight(m)
	for b.bytes > maxBytes && b.next-b.first > 1 {
		b.drop()
	}
}

func (b *Bus) grow() {
	ring := make([]apievents.Message, min(maxEvents, max(64, 2*len(b.ring))))
	for s := b.first; s < b.next; s++ {
		ring[s%uint64(len(ring))] = b.ring[s%uint64(len(b.ring))]
	}
	b.ring = ring
}

func (b *Bus) drop() {
	at := b.first % uint64(len(b.ring))
	b.bytes -= weight(b.ring[at])
	b.ring[at] = apievents.Message{}
	b.first++
}

// weight estimates the memory an event keeps alive.
func weight(m apievents.Message) int {
	n := 160 + len(m.Action) + len(m.Actor.ID)
	for k, v := range m.Actor.Attributes {
		n += 40 + len(k) + len(v)
	}
	return n
}
