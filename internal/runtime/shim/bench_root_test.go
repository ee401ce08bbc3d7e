//go:build root

package shim

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// BenchmarkStart times a container from the request to the news of its exit,
// each after an idle moment (hot loops hide what the kernel waits for). Run it
// with -benchtime=50x.
func BenchmarkStart(b *testing.B) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name string
		gap  time.Duration
		full bool // with docker's seccomp profile
		net  bool // with a network namespace made before, as the engine has them
	}{{"gap/plain", 60 * time.Millisecond, false, false}, {"gap/seccomp", 60 * time.Millisecond, true, false}, {"gap/netns", 60 * time.Millisecond, true, true}, {"hot/netns", 0, true, true}} {
		b.Run(bc.name, func(b *testing.B) {
			c, lower := shimOf(b), runtimetest.Rootfs(b)
			ctx := context.Background()
			exits, err := c.Events(ctx)
			if err != nil {
				b.Fatal(err)
			}
			ns, err := os.Open("/proc/self/ns/net") // the test's own: it is isolated
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ns.Close() }()
			var started, ended, deleted []time.Duration
			for i := range b.N {
				l := runtimetest.Launch(b, lower, fmt.Sprintf("bench-%d", i), "true")
				if bc.full {
					l.Spec.Linux.Seccomp = profile
				}
				if bc.net {
					l.NetNS = ns
				}
				time.Sleep(bc.gap)
				at := time.Now()
				if _, err := c.Start(ctx, l); err != nil {
					b.Fatal(err)
				}
				started = append(started, time.Since(at))
				<-exits
				ended = append(ended, time.Since(at))
				at = time.Now()
				if err := c.Delete(ctx, l.ID); err != nil {
					b.Fatal(err)
				}
				deleted = append(deleted, time.Since(at))
			}
			if pid, err := c.Hello(ctx); err == nil {
				b.ReportMetric(cpuTime(b, pid)/float64(b.N), "cpu-ms/op")
			}
			report(b, "start", started)
			report(b, "exit", ended)
			report(b, "delete", deleted)
		})
	}
}

// BenchmarkExec is the same for one more process in a running container.
func BenchmarkExec(b *testing.B) {
	c, lower := shimOf(b), runtimetest.Rootfs(b)
	ctx := context.Background()
	exits, err := c.Events(ctx)
	if err != nil {
		b.Fatal(err)
	}
	l := runtimetest.Launch(b, lower, "host", "sleep", "1000")
	if _, err := c.Start(ctx, l); err != nil {
		b.Fatal(err)
	}
	p := *l.Spec.Process
	p.Args = []string{"true"}
	var ended []time.Duration
	for i := range b.N {
		time.Sleep(60 * time.Millisecond)
		at := time.Now()
		if _, err := c.Exec(ctx, &runtime.Exec{ContainerID: l.ID, ExecID: fmt.Sprintf("e%d", i), Process: &p}); err != nil {
			b.Fatal(err)
		}
		<-exits
		ended = append(ended, time.Since(at))
	}
	report(b, "exit", ended)
	if err := c.Kill(ctx, l.ID, "", 9, false); err != nil {
		b.Fatal(err)
	}
	<-exits
	if err := c.Delete(ctx, l.ID); err != nil {
		b.Fatal(err)
	}
}

func report(b *testing.B, what string, d []time.Duration) {
	slices.Sort(d)
	ms := func(i int) float64 { return float64(d[i].Microseconds()) / 1000 }
	b.ReportMetric(ms(len(d)/2), what+"-p50-ms")
	b.ReportMetric(ms(len(d)*9/10), what+"-p90-ms")
	b.ReportMetric(ms(0), what+"-min-ms")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what the shim and its children have used, in milliseconds: unlike
// the wall clock it tells something on a busy machine too.
func cpuTime(b *testing.B, pid int) float64 {
	b.Helper()
	text := readFile("/proc/" + itoa(pid) + "/stat")
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	var ticks float64
	for _, s := range f[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return ticks * 10
}
