package remote

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

const (
	// A batch is what is sent before the next mark is written.
	batchBytes = 32 << 10
	batchLines = 256

	firstWait = 100 * time.Millisecond
	mostWait  = 10 * time.Second
	// lastConfirm is how long the end waits for a remote to confirm.
	lastConfirm = 5 * time.Second
)

// Options are what a [Forwarder] is made of.
type Options struct {
	Log    runtime.Log // local, with Sent set
	Driver *Driver
	Sink   Sink // the first connection, if there is one already
	Logger *slog.Logger
}

// Forwarder sends a container's log on to a remote.
type Forwarder struct {
	o      Options
	log    *slog.Logger
	mark   *logs.MarkFile
	ctx    context.Context //nolint:containedctx // the life of run
	cancel context.CancelFunc
	done   chan struct{} // closed: nothing more will be written
	once   sync.Once
	ended  chan struct{}

	// The rest is run's alone.
	at    logs.Mark // where the feed goes on after it was ended
	lines lines
	end   logs.Mark // behind what lines has taken
	batch []Message
	arena []byte // the batch's lines

	sink  Sink
	sent  []logs.Mark // behind each batch that the sink is not sure of
	floor logs.Mark   // behind those it is sure of
	kept  logs.Mark   // what the mark file has

	fails   int
	dropped int64 // bytes that rotation dropped, as told of last
}

var errAgain = errors.New("the feed goes on from an earlier place")

// Forward starts to send what a log has gained since it was last sent, and
// what it gains, until the container has ended ([Forwarder.Finish]) or ctx has.
func Forward(ctx context.Context, o Options) (*Forwarder, error) {
	m, at, err := logs.OpenMarkFile(o.Log.Sent)
	if err != nil {
		return nil, err
	}
	f := &Forwarder{
		o: o, log: o.Logger, mark: m, sink: o.Sink, done: make(chan struct{}), ended: make(chan struct{}),
		at: at, floor: at, kept: at, end: at, dropped: logs.Dropped(o.Log.Sent),
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	go f.run()
	return f, nil
}

// Finish says that the log gains no more. What it has is still sent.
func (f *Forwarder) Finish() { f.once.Do(func() { close(f.done) }) }

// Done is closed when all is sent, or the context has ended.
func (f *Forwarder) Done() <-chan struct{} { return f.ended }

// Stop ends it at once. What is not sent is left to the next.
func (f *Forwarder) Stop() {
	f.cancel()
	<-f.ended
}

func (f *Forwarder) run() {
	defer close(f.ended)
	defer f.cancel()
	defer func() {
		if f.sink != nil {
			_ = f.confirm()
		}
		f.hangUp()
		if err := f.mark.Close(); err != nil {
			f.log.Warn("cannot close a log mark", "err", err)
		}
	}()
	for {
		f.rewind()
		err := logs.Feed(f.ctx, f.o.Log, f.at, f.done, f)
		if err == nil && f.ctx.Err() == nil {
			if err = f.finish(); err == nil {
				return
			}
		}
		switch {
		case f.ctx.Err() != nil:
			return
		case errors.Is(err, errAgain):
			continue
		}
		f.log.Error("cannot read a log to send it on", "err", err)
		f.at = f.floor
		f.sleep(time.Second)
	}
}

// rewind takes up the state of the place to go on from.
func (f *Forwarder) rewind() {
	f.lines.restore(f.at.State)
	f.end, f.batch, f.arena = f.at, nil, nil
	f.sent, f.floor = nil, f.at
}

// Take is logs.Taker's.
func (f *Forwarder) Take(p logs.Piece) error {
	before := f.place()
	var err error
	f.lines.add(p.Stream, p.At, p.Data, func(m Message) {
		if err == nil && f.full() {
			err = f.flush(before) // in mid-piece, to which no mark can go
		}
		f.add(m)
	})
	if err != nil {
		return err
	}
	f.end = p.End
	if f.full() {
		return f.flush(f.place())
	}
	return nil
}

// place is a mark for all that was taken.
func (f *Forwarder) place() logs.Mark {
	m := f.end
	m.State = f.lines.state()
	return m
}

func (f *Forwarder) full() bool { return len(f.arena) >= batchBytes || len(f.batch) >= batchLines }

func (f *Forwarder) add(m Message) {
	start := len(f.arena)
	f.arena = append(f.arena, m.Line...)
	m.Line = f.arena[start:len(f.arena):len(f.arena)]
	f.batch = append(f.batch, m)
}

// Idle is logs.Taker's: what there is goes out.
func (f *Forwarder) Idle() error {
	if err := f.flush(f.place()); err != nil {
		return err
	}
	f.arena, f.batch = nil, nil
	f.tellDropped()
	if f.sink == nil {
		return nil
	}
	return f.confirm()
}

// tellDropped says what rotation had to drop.
func (f *Forwarder) tellDropped() {
	if !f.o.Log.Lossy {
		return
	}
	if n := logs.Dropped(f.o.Log.Sent); n > f.dropped {
		f.log.Warn("log lines were dropped before they could be sent on: mode=non-blocking, and the cache was full", "bytes", n-f.dropped, "total", n)
		f.dropped = n
	}
}

// flush sends the batch, and notes the place to go on from once it has arrived.
func (f *Forwarder) flush(place logs.Mark) error {
	if len(f.batch) == 0 { // nothing new but parts of lines
		if n := len(f.sent); n > 0 {
			f.sent[n-1] = place
			return nil
		}
		f.floor = place
		return f.keep(place)
	}
	if err := f.send(); err != nil {
		return err
	}
	f.batch, f.arena = f.batch[:0], f.arena[:0]
	f.sent = append(f.sent, place)
	if f.sink == nil { // given up
		return f.settle(0, 0)
	}
	return f.confirm()
}

// send hands the batch over, however often that takes.
func (f *Forwarder) send() error {
	for {
		err := f.try()
		if err == nil {
			if f.fails > 0 {
				f.log.Info("the log's remote answers again", "attempts", f.fails)
			}
			f.fails = 0
			return nil
		}
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
		if f.fails++; f.fails == 1 {
			f.log.Warn("cannot send a log on; trying again", "err", err)
		}
		if n := f.o.Driver.Retry.Tries; n > 0 && f.fails >= n {
			f.log.Warn("log lines are dropped: the remote did not take them", "lines", len(f.batch), "attempts", f.fails, "err", err)
			f.fails = 0
			return nil
		}
		f.sleep(f.wait())
		if f.doubtful() {
			return errAgain
		}
	}
}

func (f *Forwarder) try() error {
	if f.sink == nil {
		s, err := f.o.Driver.Dial(f.ctx)
		if err != nil {
			return err
		}
		f.sink = s
	}
	err := f.sink.Send(f.ctx, f.batch)
	var r *RejectedError
	if errors.As(err, &r) {
		f.log.Warn("log lines are dropped: they cannot be sent", "lines", r.Messages, "err", r.Err)
		return nil
	}
	if err != nil {
		f.lose()
	}
	return err
}

// lose gives a broken connection up, and finds what has to be sent again.
func (f *Forwarder) lose() {
	unconfirmed, doubtful, _ := f.sink.Pending()
	if err := f.settle(unconfirmed, doubtful); err != nil {
		f.log.Error("cannot mark how far a log was sent", "err", err)
	}
	f.hangUp()
}

// doubtful reports whether batches before the present one have to be sent
// again, and arranges for it.
func (f *Forwarder) doubtful() bool {
	if len(f.sent) == 0 {
		return false
	}
	f.at = f.floor
	if err := f.keep(f.floor); err != nil {
		f.log.Error("cannot mark how far a log was sent", "err", err)
	}
	return true
}

func (f *Forwarder) hangUp() {
	if f.sink != nil {
		_ = f.sink.Close()
		f.sink = nil
	}
}

// confirm looks what has arrived.
func (f *Forwarder) confirm() error {
	unconfirmed, doubtful, err := f.sink.Pending()
	if kerr := f.settle(unconfirmed, doubtful); kerr != nil {
		return kerr
	}
	if err == nil {
		return nil
	}
	f.hangUp()
	if f.doubtful() {
		f.log.Warn("the connection to a log's remote is lost; sending again what it may not have", "err", err)
		return errAgain
	}
	return nil
}

// settle forgets the batches that are sure to have arrived, and marks the last
// of those that are confirmed.
func (f *Forwarder) settle(unconfirmed, doubtful int) error {
	confirmed := len(f.sent) - min(unconfirmed, len(f.sent))
	sure := len(f.sent) - min(doubtful, len(f.sent))
	var err error
	if confirmed > 0 {
		err = f.keep(f.sent[confirmed-1])
	}
	if sure > 0 {
		f.floor = f.sent[sure-1]
		f.sent = append(f.sent[:0], f.sent[sure:]...)
	}
	return err
}

// keep writes the mark, if it is another one.
func (f *Forwarder) keep(m logs.Mark) error {
	if f.kept.Same(m) {
		return nil
	}
	if err := f.mark.Put(m); err != nil {
		return err
	}
	f.kept = m
	return nil
}

// finish sends what the container left unfinished, and waits until the remote
// has everything.
func (f *Forwarder) finish() error {
	f.lines.end(f.add)
	if err := f.flush(f.place()); err != nil {
		return err
	}
	f.tellDropped()
	for deadline := time.Now().Add(lastConfirm); f.sink != nil && time.Now().Before(deadline) && f.ctx.Err() == nil; f.sleep(time.Millisecond) {
		if n, _, err := f.sink.Pending(); err == nil && n == 0 {
			break
		}
		if err := f.confirm(); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forwarder) wait() time.Duration {
	r := f.o.Driver.Retry
	d, most := r.Wait, r.MaxWait
	if d == 0 {
		d = firstWait
	}
	if most == 0 {
		most = mostWait
	}
	for n := 1; n < f.fails && d < most; n++ {
		d *= 2
	}
	return min(d, most)
}

func (f *Forwarder) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.ctx.Done():
	}
}
