// Package layertest makes archives that the standard library does not write.
package layertest

import "fmt"

// Sparse is a tar archive of one file that claims size bytes and has none of
// them: a hole, in the old GNU format.
func Sparse(name string, size int64) []byte {
	const block = 512
	h := make([]byte, block)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00") // mode, owner, group
	copy(h[124:], "00000000000\x00")                   // size in the archive
	copy(h[136:], "07346545000\x00")                   // time
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", size, 0)) // one run of data: none, at the end
	copy(h[483:], fmt.Sprintf("%011o\x00", size))             // real size
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, make([]byte, 2*block)...)
}
