// Package remote sends what containers print to where their log driver says:
// syslog, gelf, fluentd, journald, a room each below this one.
//
// The shim writes every log to disk, in the local format. A [Forwarder] in the
// daemon follows that file and hands its lines to the driver's [Sink]; beside
// the log it marks how far the remote is known to have them. So a line is sent
// at least once, whoever crashes: the few sent last may come twice.
//
//	f, err := remote.Forward(ctx, remote.Options{Log: l, Driver: d})
//	f.Finish() // the container has ended: send the rest
//	<-f.Done()
package remote

import (
	"context"
	"time"
)

// Message is a line, or a piece of one that is longer than docker's 16 KiB.
type Message struct {
	Stream  byte // logs.Stdout or logs.Stderr
	At      time.Time
	Line    []byte // without its newline
	Partial *Partial
}

// Partial tells which piece of a long line a message is.
type Partial struct {
	ID      string // of the line
	Ordinal int    // from 1
	Last    bool
}

// Sink is a connection to a remote. One goroutine uses it. After an error it is
// closed, and what it is not sure of is sent again by the next.
type Sink interface {
	// Send hands a batch over, and waits for a remote that is slow.
	Send(ctx context.Context, batch []Message) error
	// Pending tells how many of the last batches the remote may not have: those
	// not confirmed by its kernel, and those confirmed so lately that the remote
	// may have died with them unread. An error: the connection is gone.
	Pending() (unconfirmed, doubtful int, err error)
	Close() error
}

// RejectedError is a Send's error when the batch is done with, but for messages that
// could never be sent: sending them again would not help.
type RejectedError struct {
	Messages int
	Err      error // the last one's
}

// Error says why.
func (r *RejectedError) Error() string { return r.Err.Error() }

// Reject counts one more message; r may be nil.
func (r *RejectedError) Reject(err error) *RejectedError {
	if r == nil {
		r = &RejectedError{}
	}
	r.Messages++
	r.Err = err
	return r
}

// OrNil is r as an error, nil if nothing was rejected.
func (r *RejectedError) OrNil() error {
	if r == nil {
		return nil
	}
	return r
}

// Sure is the part of a Sink whose Send returns only when nothing is in doubt.
type Sure struct{}

// Pending is none.
func (Sure) Pending() (unconfirmed, doubtful int, err error) { return 0, 0, nil }

// Driver is a log driver with the options of one container.
type Driver struct {
	Dial func(ctx context.Context) (Sink, error)
	// Lazy drivers are not asked for a connection when the container starts.
	Lazy  bool
	Retry Retry
}

// Retry says how to go on when a remote does not take a batch. The zero value:
// for as long as it takes, waiting up to ten seconds between two attempts.
type Retry struct {
	Wait, MaxWait time.Duration
	// Tries is after how many attempts the batch is given up; 0: never.
	Tries int
}
