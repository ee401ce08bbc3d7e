//go:build linux

package launch

import "encoding/binary"

const keepMachine = 183

func keepCode() (out []byte) {
	for _, insn := range []uint32{
		0xd2801b88, // mov x8, clone
		0xd2800220, // mov x0, SIGCHLD
		0xd2800001, // mov x1, 0
		0xd2800002, // mov x2, 0
		0xd2800003, // mov x3, 0
		0xd2800004, // mov x4, 0
		0xd4000001, // svc 0
		0xb50000c0, // cbnz x0, end
		0xd28007e8, // mov x8, read
		0xd2800000, // mov x0, 0
		0x910003e1, // mov x1, sp
		0xd2800022, // mov x2, 1
		0xd4000001, // svc 0
		// end: with 1 if the last call failed
		0xd37ffc00, // lsr x0, x0, 63
		0xd2800bc8, // mov x8, exit_group
		0xd4000001, // svc 0
	} {
		out = binary.LittleEndian.AppendUint32(out, insn)
	}
	return out
}
