//go:build linux

package launch

const keepMachine = 62

func keepCode() []byte {
	return []byte{
		0xb8, 57, 0, 0, 0, // mov eax, fork
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x75, 14, // jnz end
		0x31, 0xc0, // xor eax, eax (read)
		0x31, 0xff, // xor edi, edi
		0x48, 0x89, 0xe6, // mov rsi, rsp
		0xba, 1, 0, 0, 0, // mov edx, 1
		0x0f, 0x05, // syscall
		// end: with 1 if the last call failed
		0x89, 0xc7, // mov edi, eax
		0xc1, 0xef, 31, // shr edi, 31
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0x0f, 0x05, // syscall
	}
}
