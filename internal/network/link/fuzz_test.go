//go:build linux

package link

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzAnswers reads what the kernel says, cut off or with words of its own.
func FuzzAnswers(f *testing.F) {
	msg := func(typ, flags uint16, body ...byte) []byte {
		b := make([]byte, unix.SizeofNlMsghdr)
		binary.NativeEndian.PutUint32(b, uint32(len(b)+len(body)))
		binary.NativeEndian.PutUint16(b[4:], typ)
		binary.NativeEndian.PutUint16(b[6:], flags)
		binary.NativeEndian.PutUint32(b[8:], 1)
		return append(b, body...)
	}
	f.Add(msg(unix.NLMSG_ERROR, 0, 0, 0, 0, 0))
	f.Add(msg(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, append(make([]byte, 4+unix.SizeofNlMsghdr), 8, 0, 1, 0, 'n', 'o', 0, 0)...))
	f.Add(msg(unix.NLMSG_DONE, 0))
	f.Add(msg(unix.RTM_NEWLINK, 0, 1, 2, 3, 4))
	f.Fuzz(func(_ *testing.T, data []byte) {
		parse(data, 1, make([]error, 3), func(b []byte) { _ = attribute(b, 1) })
	})
}
