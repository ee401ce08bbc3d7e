package daemon

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	apisystem "github.com/moby/moby/api/types/system"
)

func TestMetricsText(t *testing.T) {
	var b bytes.Buffer
	writeMetrics(&b, &apisystem.Info{
		ContainersRunning: 1, ContainersPaused: 2, ContainersStopped: 3, NCPU: 4, MemTotal: 5, NEventsListener: 6,
		ID: "id", Architecture: "x86_64", Driver: "overlay2", KernelVersion: "6", OperatingSystem: `A "B" \`, OSType: "linux", OSVersion: "1\n2", ServerVersion: "v",
	}, "c", 7)
	want := `# HELP engine_daemon_container_states_containers The count of containers in various states
# TYPE engine_daemon_container_states_containers gauge
engine_daemon_container_states_containers{state="paused"} 2
engine_daemon_container_states_containers{state="running"} 1
engine_daemon_container_states_containers{state="stopped"} 3
# HELP engine_daemon_engine_cpus_cpus The number of cpus that the host system of the engine has
# TYPE engine_daemon_engine_cpus_cpus gauge
engine_daemon_engine_cpus_cpus 4
# HELP engine_daemon_engine_info The information related to the engine and the OS it is running on
# TYPE engine_daemon_engine_info gauge
engine_daemon_engine_info{architecture="x86_64",commit="c",daemon_id="id",graphdriver="overlay2",kernel="6",os="A \"B\" \\",os_type="linux",os_version="1\n2",version="v"} 1
# HELP engine_daemon_engine_memory_bytes The number of bytes of memory that the host system of the engine has
# TYPE engine_daemon_engine_memory_bytes gauge
engine_daemon_engine_memory_bytes 5
# HELP engine_daemon_events_subscribers_total The number of current subscribers to events
# TYPE engine_daemon_events_subscribers_total gauge
engine_daemon_events_subscribers_total 6
# HELP engine_daemon_events_total The number of events logged
# TYPE engine_daemon_events_total counter
engine_daemon_events_total 7
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
