//go:build linux

package seccomp

import (
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzCompile compiles profiles that others wrote and runs the program: it says
// what the profile says.
func FuzzCompile(f *testing.F) {
	whole, err := json.Marshal(dockers(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, uint32(165), uint64(0), uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["read","clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967297,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"},{"index":0,"value":7,"op":"SCMP_CMP_LT"}]}]}`), uint32(0), uint64(1<<32+1), uint64(0))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_TRACE","errnoRet":70000},{"names":[],"action":"SCMP_ACT_KILL"}],"flags":["SECCOMP_FILTER_FLAG_LOG"]}`), uint32(165), uint64(0), uint64(0))
	a, _ := abiOf(specs.ArchX86_64)
	nrs := a.numbers()
	f.Fuzz(func(t *testing.T, data []byte, nr uint32, first, second uint64) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(data, &p) != nil {
			return
		}
		prog, err := Compile(&p, specs.ArchX86_64)
		if err != nil || prog == nil || len(prog.Code) == 0 {
			return
		}
		for _, nr := range []uint32{nr, nr % 500, nr%500 | x32Bit} {
			c := call{nr, a.audit, [6]uint64{first, second, first, second, first, second}}
			if got, want := interpret(t, prog, c), decide(&p, a, nrs, c); got != want {
				t.Fatalf("call %d %x: %#x, want %#x by %s", nr, c.args, got, want, data)
			}
		}
	})
}
