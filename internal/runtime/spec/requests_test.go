package spec

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type fakeCDI []string

func (f fakeCDI) List() []string { return f }

func (f fakeCDI) Inject(s *specs.Spec, names []string) error {
	s.Process.Env = append(s.Process.Env, names...)
	return nil
}

func TestRequestedDevices(t *testing.T) {
	all := fakeCDI{"a.com/x=1", "nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"}
	gpu := [][]string{{"gpu", "compute"}}
	for _, tc := range []struct {
		name string
		have fakeCDI
		r    container.DeviceRequest
		want string // names, or a part of the error
	}{
		{"by name", all, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"a.com/x=1", "a.com/x=1"}}, "a.com/x=1"},
		{"unknown name", all, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"a.com/x=2"}}, "unresolvable CDI devices a.com/x=2"},
		{"names are not counted", all, container.DeviceRequest{Driver: "cdi", Count: 1}, "takes their names only"},
		{"every GPU", all, container.DeviceRequest{Count: -1, Capabilities: gpu}, "nvidia.com/gpu=all"},
		{"two GPUs", all, container.DeviceRequest{Count: 2, Capabilities: gpu}, "nvidia.com/gpu=0 nvidia.com/gpu=1"},
		{"three are too many", all, container.DeviceRequest{Count: 3, Capabilities: gpu}, "unresolvable CDI devices nvidia.com/gpu=2"},
		{"one by its number", all, container.DeviceRequest{Driver: "nvidia", DeviceIDs: []string{"1"}, Capabilities: gpu}, "nvidia.com/gpu=1"},
		{"both ways", all, container.DeviceRequest{Count: 1, DeviceIDs: []string{"1"}, Capabilities: gpu}, "cannot set both"},
		{"options", all, container.DeviceRequest{Count: 1, Options: map[string]string{"a": "b"}, Capabilities: gpu}, "options of a request for GPUs"},
		{"another vendor", all, container.DeviceRequest{Driver: "amd", Count: -1, Capabilities: gpu}, `could not select device driver "amd"`},
		{"that vendor", fakeCDI{"amd.com/gpu=all"}, container.DeviceRequest{Count: -1, Capabilities: gpu}, "amd.com/gpu=all"},
		{"no GPUs", nil, container.DeviceRequest{Count: -1, Capabilities: gpu}, "could not select device driver \"\" with capabilities: [[gpu compute]]"},
		{"no GPU meant", all, container.DeviceRequest{Count: -1, Capabilities: [][]string{{"tpu"}}}, "could not select device driver"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names, err := requested([]container.DeviceRequest{tc.r}, tc.have)
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %q, want %q", err, tc.want)
				}
				return
			}
			if got := strings.Join(names, " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
