//go:build linux

package cgroup

import (
	"encoding/json"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/systemd"
)

// FuzzDevices compiles rules for devices that others wrote and runs the program:
// it says what the rules say.
func FuzzDevices(f *testing.F) {
	f.Add([]byte(`[{"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},{"allow":true,"type":"b","access":"m"}]`), uint8(2), uint8(2), uint32(1), uint32(3))
	f.Add([]byte(`[{"allow":true,"access":"rwm"},{"type":"c","major":5,"access":"w"}]`), uint8(2), uint8(6), uint32(5), uint32(0))
	f.Add([]byte(`[{"allow":true,"type":"c","major":4294967297,"access":"r"}]`), uint8(1), uint8(1), uint32(1), uint32(0))
	f.Add([]byte(`[{"allow":true,"access":"rrr"}]`), uint8(1), uint8(3), uint32(8), uint32(0))
	f.Add([]byte(`[{"type":"x"},{"access":"q"},{"major":-1}]`), uint8(1), uint8(1), uint32(8), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, kind, access uint8, major, minor uint32) {
		var rules []specs.LinuxDeviceCgroup
		if json.Unmarshal(data, &rules) != nil {
			return
		}
		kind, access = 1+kind%2, 1+access%7
		major, minor = major%(1<<12), minor%(1<<20) // a device has no larger ones
		for _, rules := range [][]specs.LinuxDeviceCgroup{rules, withDefaultDevices(rules)} {
			prog, err := deviceProgram(rules)
			if err != nil {
				return
			}
			if got, want := runDevices(t, prog, kind, access, major, minor), decideDevice(rules, kind, access, major, minor); got != want {
				t.Errorf("kind %d, access %d of %d:%d: %v, want %v by %+v", kind, access, major, minor, got, want, rules)
			}
		}
		// What is added allows no more than making nodes, and character devices 1, 5
		// and 136.
		given, all := decideDevice(joinAccess(rules), kind, access, major, minor), decideDevice(withDefaultDevices(rules), kind, access, major, minor)
		if all && !given && access != 1 && (kind != 2 || major != 1 && major != 5 && major != 136) {
			t.Errorf("kind %d, access %d of %d:%d is allowed by nobody: %+v", kind, access, major, minor, rules)
		}
	})
}

func TestJoinAccess(t *testing.T) {
	ten, one := new(int64(10)), new(int64(1))
	rule := func(allow bool, major *int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: major, Access: access}
	}
	for _, tt := range []struct {
		rules []specs.LinuxDeviceCgroup
		last  string
	}{
		{[]specs.LinuxDeviceCgroup{rule(true, ten, "r"), rule(true, ten, "w")}, "wr"},
		{[]specs.LinuxDeviceCgroup{rule(true, ten, "r"), rule(true, one, "m"), rule(true, ten, "w"), rule(true, ten, "m")}, "mwr"},
		{[]specs.LinuxDeviceCgroup{rule(true, ten, "r"), rule(false, ten, "r"), rule(true, ten, "w")}, "w"},
		{[]specs.LinuxDeviceCgroup{rule(true, ten, "r"), rule(true, nil, "w")}, "w"},
		{[]specs.LinuxDeviceCgroup{rule(true, ten, ""), rule(true, ten, "w")}, ""},
	} {
		got := joinAccess(tt.rules)
		if last := got[len(got)-1].Access; last != tt.last {
			t.Errorf("%+v: the last one is for %q, want %q", tt.rules, last, tt.last)
		}
	}
	both := withDefaultDevices([]specs.LinuxDeviceCgroup{rule(true, ten, "r"), rule(true, ten, "w")})
	prog, err := deviceProgram(both)
	if err != nil {
		t.Fatal(err)
	}
	if !runDevices(t, prog, unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_ACC_READ|unix.BPF_DEVCG_ACC_WRITE, 10, 229) {
		t.Error("who may read and may write may not open for both")
	}
}

// runDevices runs a program as the kernel does.
func runDevices(t *testing.T, prog []insn, kind, access uint8, major, minor uint32) bool {
	t.Helper()
	context := map[int16]uint64{0: uint64(access)<<16 | uint64(kind), 4: uint64(major), 8: uint64(minor)}
	var regs [11]uint64
	for pc, n := 0, 0; ; pc, n = pc+1, n+1 {
		if pc < 0 || pc >= len(prog) || n > len(prog) {
			t.Fatalf("it runs to %d of %d", pc, len(prog))
		}
		in := prog[pc]
		dst, src := in.regs&0xf, in.regs>>4
		switch in.op {
		case ldxW:
			v, ok := context[in.off]
			if !ok || src != 1 {
				t.Fatalf("it reads at %d of %d", in.off, src)
			}
			regs[dst] = v
		case and32:
			regs[dst] = uint64(uint32(regs[dst]) & uint32(in.imm))
		case rsh32:
			regs[dst] = uint64(uint32(regs[dst]) >> uint32(in.imm))
		case mov32x:
			regs[dst] = uint64(uint32(regs[src]))
		case mov64:
			regs[dst] = uint64(int64(in.imm))
		case jne:
			if regs[dst] != uint64(int64(in.imm)) {
				pc += int(in.off)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.off)
		case exit:
			return regs[0] != 0
		default:
			t.Fatalf("instruction %#v", in)
		}
	}
}

// decideDevice answers by the rules themselves: the last one that is about the
// device and the access decides.
func decideDevice(rules []specs.LinuxDeviceCgroup, kind, access uint8, major, minor uint32) (allowed bool) {
	bits := map[rune]uint8{'m': 1, 'r': 2, 'w': 4}
	for _, r := range rules {
		var mask uint8
		for _, c := range r.Access {
			mask |= bits[c]
		}
		if mask == 0 {
			mask = 7
		}
		switch {
		case (r.Type == "c" || r.Type == "u") && kind != 2, r.Type == "b" && kind != 1:
		case !wild(r.Major) && *r.Major != int64(major), !wild(r.Minor) && *r.Minor != int64(minor):
		case r.Allow && access&^mask == 0:
			allowed = true
		case !r.Allow && access&mask != 0:
			allowed = false
		}
	}
	return allowed
}

// FuzzProperties says limits that others wrote in systemd's words.
func FuzzProperties(f *testing.F) {
	f.Add([]byte(`{"memory":{"limit":1000,"swap":2000,"reservation":-1},"cpu":{"shares":2,"quota":50000,"period":100000,"cpus":"0-2,7","mems":"0","idle":1},"pids":{"limit":7},
		"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},"unified":{"memory.high":"max","pids.max":"5"}}`))
	f.Add([]byte(`{"cpu":{"quota":9223372036854775807,"period":1,"cpus":"65535"},"blockIO":{"weight":1}}`))
	f.Add([]byte(`{"cpu":{"cpus":"3-1"},"unified":{"cpu.weight":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r specs.LinuxResources
		if json.Unmarshal(data, &r) != nil {
			return
		}
		props, err := properties(&r)
		if err != nil {
			return
		}
		if p := tasksMax(r.Pids); p != nil {
			props = append(props, *p)
		}
		for _, p := range props {
			checkProperty(t, p, &r)
		}
	})
}

func checkProperty(t *testing.T, p systemd.Property, r *specs.LinuxResources) {
	t.Helper()
	switch v := p.Value.(type) {
	case uint64:
		if p.Name == "CPUQuotaPerSecUSec" && r.CPU.Quota != nil && *r.CPU.Quota > 0 && v < uint64(*r.CPU.Quota)/max(1, quotaPeriod(r)) {
			t.Errorf("a quota of %d in %d is %d a second", *r.CPU.Quota, quotaPeriod(r), v)
		}
		if p.Name == "IOWeight" && (v < 1 || v > 10000 && *r.BlockIO.Weight <= 1000) {
			t.Errorf("IOWeight %d of %d", v, *r.BlockIO.Weight)
		}
	case []byte:
		if len(v) > 65536/8 {
			t.Errorf("%s has %d bytes", p.Name, len(v))
		}
	case []systemd.DeviceLimit:
		for _, d := range v {
			if !strings.HasPrefix(d.Path, "/dev/block/") {
				t.Errorf("%s names %q", p.Name, d.Path)
			}
		}
	default:
		t.Errorf("%s is a %T", p.Name, v)
	}
}

func quotaPeriod(r *specs.LinuxResources) uint64 {
	if r.CPU.Period == nil {
		return 100_000
	}
	return *r.CPU.Period
}
