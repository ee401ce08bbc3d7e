package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// message is docker's line of progress, with the fields that newer versions of
// the API dropped.
type message struct {
	Stream         string               `json:"stream,omitempty"`
	Status         string               `json:"status,omitempty"`
	Progress       *jsonstream.Progress `json:"progressDetail,omitempty"`
	LegacyProgress string               `json:"progress,omitempty"`
	ID             string               `json:"id,omitempty"`
	Error          *jsonstream.Error    `json:"errorDetail,omitempty"`
	LegacyError    string               `json:"error,omitempty"`
	Aux            any                  `json:"aux,omitempty"`
}

// maxQueue bounds what waits for a slow client. Then counters are dropped: a
// later one tells the same; anything else makes the verb wait.
const maxQueue = 1 << 20

// reporter is the [progress.Sink] of one request: it never waits for the
// network unless the client is far behind, and sends whatever came up meanwhile
// in one piece.
type reporter struct {
	w http.ResponseWriter
	v apiVersion

	mu     sync.Mutex // guards what follows
	err    error      // the client is gone
	queue  *bytes.Buffer
	busy   bool       // the sender runs
	room   *sync.Cond // the queue was taken
	begun  bool
	closed bool // whatever still comes has no reader
	sender sync.WaitGroup
}

func newReporter(w http.ResponseWriter, v apiVersion) *reporter {
	r := &reporter{w: w, v: v, queue: new(bytes.Buffer)}
	r.room = sync.NewCond(&r.mu)
	return r
}

// Emit queues a report for the client.
func (r *reporter) Emit(e progress.Event) {
	if e.Aux != nil && r.v.before(30) && e.Status == "" && e.Stream == "" {
		return // older clients know no aux
	}
	r.send(r.encode(e), e.Total > 0 && e.Current < e.Total)
}

func (r *reporter) encode(e progress.Event) message {
	m := message{Stream: e.Stream, Status: e.Status, ID: e.ID, Aux: e.Aux}
	switch {
	case e.Current > 0 || e.Total > 0:
		m.Progress = &jsonstream.Progress{Current: e.Current, Total: e.Total}
		if r.v.before(48) {
			m.LegacyProgress = bar(e.Current, e.Total)
		}
	case e.ID != "" && e.Status != "" && !strings.HasPrefix(e.Status, "Pulling from "):
		// Clients redraw the line of an id only for reports with this field.
		m.Progress = &jsonstream.Progress{}
	}
	return m
}

func (r *reporter) send(m message, droppable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.queue.Len() > maxQueue && r.err == nil {
		if droppable {
			return
		}
		r.room.Wait()
	}
	if r.err != nil || r.closed {
		return
	}
	enc := json.NewEncoder(r.queue)
	enc.SetEscapeHTML(false)
	at := r.queue.Len()
	if err := enc.Encode(m); err != nil { // a value of Aux that is no JSON
		r.queue.Truncate(at)
		return
	}
	if b := r.queue.Bytes(); b[len(b)-1] == '\n' { // docker ends its lines with \r\n
		b[len(b)-1] = '\r'
		r.queue.WriteByte('\n')
	}
	r.begun = true
	if !r.busy {
		r.busy = true
		r.sender.Go(r.drain)
	}
}

// drain sends until the queue is empty.
func (r *reporter) drain() {
	rc := http.NewResponseController(r.w)
	r.w.Header().Set("Content-Type", "application/json")
	out := new(bytes.Buffer)
	for {
		r.mu.Lock()
		if r.queue.Len() == 0 || r.err != nil {
			r.busy = false
			r.mu.Unlock()
			return
		}
		out.Reset()
		out, r.queue = r.queue, out
		r.room.Broadcast()
		r.mu.Unlock()
		_, err := r.w.Write(out.Bytes())
		if err == nil {
			err = rc.Flush()
		}
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.room.Broadcast()
			r.mu.Unlock()
		}
	}
}

// finish ends the stream of a verb that returned err: it is the answer if
// nothing was sent yet, else the stream's last line.
func (r *reporter) finish(err error) error {
	r.mu.Lock()
	begun := r.begun
	r.mu.Unlock()
	if err != nil {
		if !begun {
			return err
		}
		r.send(r.failure(err), false)
	}
	r.close()
	if !begun {
		r.w.Header().Set("Content-Type", "application/json")
		r.w.WriteHeader(http.StatusOK)
	}
	return nil
}

// close waits until all is sent, and drops what comes later.
func (r *reporter) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.sender.Wait()
}

// report answers with the progress of a verb.
func report(w http.ResponseWriter, r *request, verb func(progress.Sink) error) error {
	rep := newReporter(w, r.v)
	defer rep.close()
	return rep.finish(verb(rep))
}

// reportAll is report for a verb whose failure is always a report too.
func reportAll(w http.ResponseWriter, r *request, verb func(progress.Sink) error) error {
	rep := newReporter(w, r.v)
	defer rep.close()
	if err := verb(rep); err != nil {
		rep.send(rep.failure(err), false)
	}
	return rep.finish(nil)
}

func (r *reporter) failure(err error) message {
	m := message{Error: &jsonstream.Error{Message: err.Error()}}
	var je *jsonstream.Error
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &je):
		m.Error = je
	case errors.As(err, &coded): // of a build's step: the client exits with it
		m.Error.Code = coded.ExitCode()
	}
	// Docker dropped it in 1.53. docker-py talks to the newest version there is
	// and looks for nothing else.
	m.LegacyError = m.Error.Message
	return m
}

// bar draws "[=====>    ]  1.2MB/3MB" for clients that do not draw themselves.
func bar(current, total int64) string {
	if total <= 0 || current > total {
		return units.HumanSize(float64(current))
	}
	const width = 50
	n := int(current * width / total)
	arrow := strings.Repeat("=", n)
	if n < width {
		arrow += ">" + strings.Repeat(" ", width-n-1)
	}
	return fmt.Sprintf("[%s] %8v/%v", arrow, units.HumanSize(float64(current)), units.HumanSize(float64(total)))
}
