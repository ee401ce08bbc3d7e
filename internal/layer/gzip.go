package layer

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

const (
	gzipBlock  = 1 << 20  // compressed by one goroutine
	gzipWindow = 32 << 10 // what deflate can look back
)

// GzipWriter compresses on all processors into one ordinary gzip stream. The
// same input always gives the same output, whatever the number of processors.
type GzipWriter struct {
	w     io.Writer
	crc   uint32
	size  uint32
	buf   []byte // block being filled
	dict  []byte // end of the block before
	queue chan chan []byte
	done  chan struct{}
	pool  *sync.Pool

	mu  sync.Mutex
	err error // of writing; guarded by mu
}

// gzipHeader has no name, no time, and an unknown system: the same everywhere.
var gzipHeader = [...]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// NewGzipWriter starts a stream; Close ends it.
func NewGzipWriter(w io.Writer) *GzipWriter {
	g := &GzipWriter{
		w: w, buf: make([]byte, 0, gzipBlock), queue: make(chan chan []byte, runtime.GOMAXPROCS(0)), done: make(chan struct{}),
		pool: &sync.Pool{New: func() any { b := make([]byte, 0, gzipBlock); return &b }},
	}
	go g.writer()
	head := make(chan []byte, 1)
	head <- gzipHeader[:]
	g.queue <- head
	return g
}

// writer puts compressed blocks out in order.
func (g *GzipWriter) writer() {
	defer close(g.done)
	for c := range g.queue {
		b := <-c
		if g.failed() != nil {
			continue
		}
		if _, err := g.w.Write(b); err != nil {
			g.mu.Lock()
			g.err = err
			g.mu.Unlock()
		}
	}
}

func (g *GzipWriter) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Write implements io.Writer.
func (g *GzipWriter) Write(p []byte) (int, error) {
	if err := g.failed(); err != nil {
		return 0, err
	}
	g.crc = crc32.Update(g.crc, crc32.IEEETable, p)
	g.size += uint32(len(p))
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), gzipBlock-len(g.buf))
		g.buf = append(g.buf, p[:k]...)
		p = p[k:]
		if len(g.buf) == gzipBlock {
			g.flush(false)
		}
	}
	return n, nil
}

// flush hands the block to a goroutine; the queue bounds how many there are.
func (g *GzipWriter) flush(last bool) {
	block, dict := g.buf, g.dict
	if !last {
		g.dict = append([]byte(nil), block[len(block)-gzipWindow:]...)
		next, ok := g.pool.Get().(*[]byte)
		if !ok {
			next = new([]byte)
		}
		g.buf = (*next)[:0]
	}
	out := make(chan []byte, 1)
	g.queue <- out
	go func() {
		out <- deflate(block, dict, last)
		g.pool.Put(&block)
	}()
}

func deflate(block, dict []byte, last bool) []byte {
	var b buffer
	w, err := flate.NewWriterDict(&b, 4, dict)
	if err == nil {
		_, err = w.Write(block)
	}
	if err == nil && last {
		err = w.Close()
	} else if err == nil {
		err = w.Flush()
	}
	if err != nil {
		panic(err) // the level is right, and memory does not fail
	}
	return b
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// Close ends the stream, and waits until it is written.
func (g *GzipWriter) Close() error {
	g.flush(true)
	tail := make(chan []byte, 1)
	tail <- binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, g.crc), g.size)
	g.queue <- tail
	close(g.queue)
	<-g.done
	return g.failed()
}
