package runtime

import "sync"

// An ExitQueue holds the exits that one listener has not taken yet. It has no
// bound but the number of processes: nobody who reports an exit ever waits.
type ExitQueue struct {
	mu    sync.Mutex // guards queue
	queue []Exit
	wake  chan struct{}
}

// NewExitQueue returns an empty one.
func NewExitQueue() *ExitQueue { return &ExitQueue{wake: make(chan struct{}, 1)} }

// Put adds an exit.
func (q *ExitQueue) Put(e Exit) {
	q.mu.Lock()
	q.queue = append(q.queue, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Take returns all that came since it was last called.
func (q *ExitQueue) Take() []Exit {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.queue
	q.queue = nil
	return out
}

// Wake receives when there is something to take.
func (q *ExitQueue) Wake() <-chan struct{} { return q.wake }
