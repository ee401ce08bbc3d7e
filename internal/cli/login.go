package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/term"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/authfile"
)

type loginOptions struct {
	user, password string
	stdin          bool
}

func newLogin(a *app) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.login(cmd.Context(), server(args), &o, cmd.Flags().Changed("password"))
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.password, "password", "p", "", "Password or token")
	fs.BoolVar(&o.stdin, "password-stdin", false, "Read the password from STDIN")
	fs.StringVarP(&o.user, "username", "u", "", "User name")
	return cmd
}

// server is the registry that a command line names, as its credentials' key.
func server(args []string) string {
	if len(args) == 0 || args[0] == "docker.io" || args[0] == "index.docker.io" || args[0] == "registry-1.docker.io" {
		return authfile.IndexServer
	}
	if args[0] == authfile.IndexServer {
		return args[0]
	}
	s := strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://")
	host, _, _ := strings.Cut(s, "/")
	return host
}

func (a *app) login(ctx context.Context, server string, o *loginOptions, passwordGiven bool) error {
	if passwordGiven {
		fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		if o.stdin {
			return errors.New("--password and --password-stdin are mutually exclusive")
		}
	}
	if o.stdin {
		if o.user == "" {
			return errors.New("Must provide --username with --password-stdin") //nolint:staticcheck // docker's words
		}
		b, err := io.ReadAll(io.LimitReader(a.in, 1<<20))
		if err != nil {
			return err
		}
		o.password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	conf, err := a.config()
	if err != nil {
		return err
	}
	cl, err := a.client(ctx)
	if err != nil {
		return err
	}
	try := func(auth registry.AuthConfig) (registry.AuthResponse, error) {
		return cl.RegistryLogin(ctx, registry.AuthConfig{
			Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, ServerAddress: server,
		})
	}
	// What is stored may still do.
	if o.user == "" && o.password == "" {
		if auth, err := conf.Get(server); err == nil && (auth.Username != "" || auth.IdentityToken != "") {
			r, err := try(auth)
			if err == nil {
				fmt.Fprintln(a.err, "Authenticating with existing credentials...")
				return a.loggedIn(conf, server, auth, r)
			}
			if !errdefs.IsUnauthorized(err) {
				return err
			}
			o.user = auth.Username
		}
	}
	auth, err := a.askCredentials(server, o)
	if err != nil {
		return err
	}
	r, err := try(auth)
	if err != nil {
		return err
	}
	return a.loggedIn(conf, server, auth, r)
}

func (a *app) askCredentials(server string, o *loginOptions) (registry.AuthConfig, error) {
	auth := registry.AuthConfig{Username: o.user, Password: o.password, ServerAddress: server}
	if auth.Username != "" && auth.Password != "" {
		return auth, nil
	}
	fd, is := terminal(a.in)
	if !is {
		return auth, errors.New("cannot perform an interactive login from a non-TTY device")
	}
	in := bufio.NewReader(a.in)
	read := func(prompt string) (string, error) {
		fmt.Fprint(a.out, prompt)
		s, err := in.ReadString('\n')
		if err != nil && s == "" {
			return "", err
		}
		return strings.TrimSpace(s), nil
	}
	var err error
	if auth.Username == "" {
		if auth.Username, err = read("Username: "); err != nil {
			return auth, err
		}
		if auth.Username == "" {
			return auth, errors.New("username is required")
		}
	}
	if auth.Password == "" {
		state, err := term.SaveState(fd)
		if err != nil {
			return auth, err
		}
		if err := term.DisableEcho(fd, state); err != nil {
			return auth, err
		}
		auth.Password, err = read("Password: ")
		_ = term.RestoreTerminal(fd, state)
		fmt.Fprintln(a.out)
		if err != nil {
			return auth, err
		}
		if auth.Password == "" {
			return auth, errors.New("password is required")
		}
	}
	return auth, nil
}

func (a *app) loggedIn(conf *authfile.File, server string, auth registry.AuthConfig, r registry.AuthResponse) error {
	auth.ServerAddress = server
	if t := r.IdentityToken; t != "" {
		auth.IdentityToken, auth.Password = t, ""
	}
	helper, err := conf.Store(auth)
	if err != nil {
		return fmt.Errorf("error saving credentials: %w", err)
	}
	if helper == "" {
		fmt.Fprintf(a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to keep them safe.\n\n", conf.Path())
	}
	if s := r.Status; s != "" {
		fmt.Fprintln(a.out, s)
	}
	return nil
}

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Args:  maxArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := a.config()
			if err != nil {
				return err
			}
			s := server(args)
			found, err := conf.Erase(s)
			if err != nil {
				return fmt.Errorf("could not erase credentials: %w", err)
			}
			if !found {
				fmt.Fprintf(a.out, "Not logged in to %s\n", s)
				return nil
			}
			fmt.Fprintf(a.out, "Removing login credentials for %s\n", s)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
