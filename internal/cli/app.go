package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/term"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/internal/cli/authfile"
	"github.com/skiff-containers/skiff/internal/kit/version"
)

// app is what all verbs share: streams, global flags, and the client and
// configuration once one asks for them.
type app struct {
	in       io.ReadCloser
	out, err io.Writer
	flags    globalFlags

	cl   *client.Client
	conf *authfile.File

	mu sync.Mutex // guards what concurrent requests of one verb collect or print
}

type globalFlags struct {
	hosts                  []string
	config                 string
	context                string
	debug                  bool
	logLevel               string
	tls, tlsVerify         bool
	tlsCA, tlsCert, tlsKey string
	noAutostart            bool
	version                bool
}

func (g *globalFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&g.hosts, "host", "H", nil, "Daemon to connect to")
	fs.StringVar(&g.config, "config", "", "Directory of client configuration (default \"~/.docker\")")
	fs.StringVarP(&g.context, "context", "c", "", "Only \"default\" is supported")
	fs.BoolVarP(&g.debug, "debug", "D", false, "Say more on errors")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", "Logging level: debug, info, warn, error, fatal")
	fs.BoolVar(&g.tls, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.tlsVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the daemon")
	fs.StringVar(&g.tlsCA, "tlscacert", "", "Trust certificates signed by this CA only")
	fs.StringVar(&g.tlsCert, "tlscert", "", "TLS certificate file")
	fs.StringVar(&g.tlsKey, "tlskey", "", "TLS key file")
	fs.BoolVar(&g.noAutostart, "no-autostart", os.Getenv("SKIFF_NO_AUTOSTART") == "1", "Do not start skiffd when none answers")
	fs.BoolVarP(&g.version, "version", "v", false, "Print the version and quit")
	for _, f := range []string{"host", "config", "context", "debug", "log-level", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey", "no-autostart", "version"} {
		_ = fs.SetAnnotation(f, globalFlag, []string{"true"})
	}
}

const globalFlag = "global"

// host is the daemon's address.
func (a *app) host() string {
	if n := len(a.flags.hosts); n > 0 {
		return normalHost(a.flags.hosts[n-1])
	}
	h, _ := client.HostFromEnv()
	return normalHost(h)
}

// normalHost completes short forms: "/path", "fd://", ":2375", "host:2375".
func normalHost(h string) string {
	switch {
	case h == "" || h == "fd://" || h == "unix://":
		return client.DefaultHost
	case strings.HasPrefix(h, "/"):
		return "unix://" + h
	case h == "tcp://":
		return "tcp://localhost:2375"
	case !strings.Contains(h, "://"):
		if strings.HasPrefix(h, ":") {
			h = "localhost" + h
		}
		return "tcp://" + h
	}
	return h
}

// client returns the client, and sees to it that a daemon runs if that is our
// business.
func (a *app) client(ctx context.Context) (*client.Client, error) {
	if a.cl != nil {
		return a.cl, nil
	}
	if len(a.flags.hosts) > 1 {
		return nil, fmt.Errorf("specify only one -H")
	}
	if c := a.flags.context; c != "" && c != "default" {
		return nil, fmt.Errorf("context %q: contexts are not supported, use -H", c)
	}
	host := a.host()
	opts := []client.Option{client.WithHost(host), client.WithUserAgent("skiff/" + version.Version)}
	if a.flags.tls || a.flags.tlsVerify {
		opts = append(opts, client.WithTLS(a.tlsFiles()))
	}
	if err := a.autostart(ctx, host); err != nil {
		return nil, err
	}
	cl, err := client.New(opts...)
	if err != nil {
		return nil, err
	}
	a.cl = cl
	return cl, nil
}

func (a *app) tlsFiles() client.TLS {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = a.configDir()
	}
	pick := func(given, name string) string {
		if given != "" {
			return given
		}
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err != nil {
			return ""
		}
		return p
	}
	return client.TLS{
		CAFile:   pick(a.flags.tlsCA, "ca.pem"),
		CertFile: pick(a.flags.tlsCert, "cert.pem"),
		KeyFile:  pick(a.flags.tlsKey, "key.pem"),
		Verify:   a.flags.tlsVerify,
	}
}

func (a *app) configDir() string {
	if a.flags.config != "" {
		return a.flags.config
	}
	return authfile.Dir()
}

// config returns the user's configuration.
func (a *app) config() (*authfile.File, error) {
	if a.conf == nil {
		f, err := authfile.Load(a.configDir())
		if err != nil {
			return nil, err
		}
		a.conf = f
	}
	return a.conf, nil
}

func (a *app) close() {
	if a.cl != nil {
		_ = a.cl.Close()
	}
}

// terminal returns a stream's descriptor and whether it is a terminal.
func terminal(stream any) (fd uintptr, is bool) { return term.GetFdInfo(stream) }

// width is the width of the terminal that stream is, or def.
func width(stream any, def int) int {
	fd, is := terminal(stream)
	if !is {
		return def
	}
	ws, err := term.GetWinsize(fd)
	if err != nil || ws.Width == 0 {
		return def
	}
	return int(ws.Width)
}

// each runs f for every name, several at once, and prints what succeeded in
// the order of the names. All failures are reported.
func (a *app) each(ctx context.Context, names []string, f func(ctx context.Context, name string) error) error {
	return a.eachText(ctx, names, func(ctx context.Context, name string) (string, error) { return name, f(ctx, name) })
}

// eachText is [app.each] for an f that says what to print.
func (a *app) eachText(ctx context.Context, names []string, f func(ctx context.Context, name string) (string, error)) error {
	type result struct {
		text string
		err  error
	}
	results := make([]result, len(names))
	limit := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Add(1)
		limit <- struct{}{}
		go func() {
			defer func() { <-limit; wg.Done() }()
			text, err := f(ctx, n)
			results[i] = result{text, err}
		}()
	}
	wg.Wait()
	var failed []string
	for _, r := range results {
		if errors.Is(r.err, errSkip) {
			continue
		}
		if r.err != nil {
			failed = append(failed, a.explain(r.err))
			continue
		}
		fmt.Fprintln(a.out, r.text)
	}
	return textError(failed)
}

// errSkip says that there was nothing to do, and nothing to say.
var errSkip = errors.New("nothing to do")

// textError joins messages; none is no error.
func textError(messages []string) error {
	if len(messages) == 0 {
		return nil
	}
	return &statusError{1, strings.Join(messages, "\n")}
}

// warn prints an error that does not end the verb.
func (a *app) warn(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintln(a.err, a.explain(err))
}

// formatHelp is the help of --format.
const formatHelp = "Format of the output: 'table', 'table TEMPLATE', 'json' or a Go 'TEMPLATE'"
