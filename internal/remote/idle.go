package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// idleAfter is how long a registry may send nothing in the middle of an answer.
// Who waits for it holds what others wait for.
const idleAfter = time.Minute

// impatient breaks an answer off that does not go on. A download is taken up
// again, as after a broken connection, but not by the library, at once and in
// vain.
type impatient struct {
	http.RoundTripper
	after time.Duration
}

// RoundTrip watches the answer's body; its head has a limit of its own.
func (i *impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	resp, err := i.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	b := &watched{ReadCloser: resp.Body, cancel: cancel, after: i.after}
	b.timer = time.AfterFunc(time.Hour, b.giveUp)
	b.timer.Stop() // runs while somebody reads
	resp.Body = b
	return resp, nil
}

type watched struct {
	io.ReadCloser
	cancel  context.CancelFunc
	after   time.Duration
	timer   *time.Timer
	stalled atomic.Bool
}

func (b *watched) giveUp() {
	b.stalled.Store(true)
	b.cancel()
}

func (b *watched) Read(p []byte) (int, error) {
	b.timer.Reset(b.after)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && b.stalled.Load() {
		err = fmt.Errorf("the registry sent nothing for %v: %w", b.after, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (b *watched) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}
