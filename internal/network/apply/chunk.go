package apply

import "github.com/google/nftables"

// listMax is what the elements of one message may take up: all of them are in
// one attribute, and 16 bits are what it has for its length. What is longer the
// kernel would read as its remainder.
const listMax = 1<<16 - 1 - attrHead

const attrHead = 4 // length and type

// chunks cuts the elements into lists that a message can carry.
func chunks(es []nftables.SetElement) (out [][]nftables.SetElement) {
	start, size := 0, 0
	for i, e := range es {
		n := elementSize(e)
		if size+n > listMax {
			out = append(out, es[start:i])
			start, size = i, 0
		}
		size += n
	}
	if start < len(es) {
		out = append(out, es[start:])
	}
	return out
}

// elementSize is what an element takes up: a list of a key and, of a map, data,
// each of them in a list of its own.
func elementSize(e nftables.SetElement) int {
	n := attrHead + attrHead + attribute(len(e.Key))
	if len(e.Val) > 0 {
		n += attrHead + attribute(len(e.Val))
	}
	return n
}

func attribute(payload int) int { return attrHead + (payload+3)&^3 }

// maxBatch and maxAnswers bound a transaction and its answers, one a message.
// They are limits, no memory: by default the kernel takes the ports of about two
// containers that publish a thousand each.
const (
	maxBatch   = 64 << 20
	maxAnswers = 8 << 20
)

// buffered is a socket of the library that nftables is written on.
type buffered interface {
	SetWriteBuffer(bytes int) error
	SetReadBuffer(bytes int) error
}

// roomy raises the limits of a socket; without the right to, as far as the host's
// own go.
func roomy[C buffered](c C) error {
	if err := c.SetWriteBuffer(maxBatch); err != nil {
		return err
	}
	return c.SetReadBuffer(maxAnswers)
}
