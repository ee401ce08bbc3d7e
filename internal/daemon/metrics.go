package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	apisystem "github.com/moby/moby/api/types/system"

	"github.com/skiff-containers/skiff/internal/kit/version"
)

// listenMetrics opens --metrics-addr; nil without one.
func (c *Config) listenMetrics() (net.Listener, error) {
	if c.MetricsAddr == "" {
		return nil, nil //nolint:nilnil // none is asked for
	}
	l, err := net.Listen("tcp", c.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("--metrics-addr %s: %w", c.MetricsAddr, err)
	}
	return l, nil
}

// serveMetrics answers GET /metrics, in prometheus' text format, until ctx ends.
func (d *daemon) serveMetrics(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		i, err := d.system.Info(r.Context())
		if err != nil {
			d.log.WarnContext(r.Context(), "cannot gather metrics", "err", err)
			http.Error(w, "cannot gather metrics: the daemon's log tells more", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		writeMetrics(w, i, version.Commit, d.events.Published())
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	d.log.InfoContext(ctx, "metrics are served", "address", l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// writeMetrics writes docker's, by their names. What goes wrong with w is the
// other end's.
func writeMetrics(w io.Writer, i *apisystem.Info, commit string, events uint64) {
	metric := func(name, kind, help string, lines ...string) {
		_, _ = fmt.Fprintf(w, "# HELP engine_daemon_%s %s\n# TYPE engine_daemon_%s %s\n", name, help, name, kind)
		for _, l := range lines {
			_, _ = fmt.Fprintf(w, "engine_daemon_%s%s\n", name, l)
		}
	}
	one := func(v any) string { return fmt.Sprintf(" %v", v) }
	state := func(s string, n int) string { return fmt.Sprintf("{state=%q} %d", s, n) }
	metric("container_states_containers", "gauge", "The count of containers in various states",
		state("paused", i.ContainersPaused), state("running", i.ContainersRunning), state("stopped", i.ContainersStopped))
	metric("engine_cpus_cpus", "gauge", "The number of cpus that the host system of the engine has", one(i.NCPU))
	metric("engine_info", "gauge", "The information related to the engine and the OS it is running on", labels(
		"architecture", i.Architecture, "commit", commit, "daemon_id", i.ID, "graphdriver", i.Driver, "kernel", i.KernelVersion,
		"os", i.OperatingSystem, "os_type", i.OSType, "os_version", i.OSVersion, "version", i.ServerVersion)+" 1")
	metric("engine_memory_bytes", "gauge", "The number of bytes of memory that the host system of the engine has", one(i.MemTotal))
	metric("events_subscribers_total", "gauge", "The number of current subscribers to events", one(i.NEventsListener))
	metric("events_total", "counter", "The number of events logged", one(events))
}

// labels writes {key="value",…}.
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	var parts []string
	for n := 0; n < len(pairs); n += 2 {
		parts = append(parts, pairs[n]+`="`+escape.Replace(pairs[n+1])+`"`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}
