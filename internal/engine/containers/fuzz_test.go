package containers

import (
	"encoding/json"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// FuzzPortSpecs reads what a client wants to publish.
func FuzzPortSpecs(f *testing.F) {
	f.Add(`{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080-8090"},{"HostPort":""}],"53/udp":[]}`, true)
	f.Add(`{"1/sctp":[{"HostPort":"0"}],"65535/tcp":[{"HostIp":"::","HostPort":"65535-65535"}]}`, false)
	f.Fuzz(func(t *testing.T, text string, all bool) {
		h := &container.HostConfig{PublishAllPorts: all}
		if json.Unmarshal([]byte(text), &h.PortBindings) != nil {
			return
		}
		specs, err := portSpecs(&container.Config{}, h)
		for _, s := range specs {
			if err == nil && s.HostEnd != 0 && s.HostEnd < s.HostPort {
				t.Errorf("%s: ports %d to %d", text, s.HostPort, s.HostEnd)
			}
		}
	})
}
