package build

import (
	"context"
	"net"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/filesync"
	"google.golang.org/grpc"
)

// localSession serves a build whose client has no session of its own: its
// context and its credentials, over a pipe within the process.
type localSession struct {
	id    string
	close func()
}

func (k *kit) openSession(ctx context.Context, r Request) (*localSession, error) {
	s, err := session.NewSession(ctx, r.SharedKey)
	if err != nil {
		return nil, err
	}
	if r.Context != nil {
		s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": r.Context, "dockerfile": r.Context}))
	}
	if r.Credentials != nil {
		s.Allow(credentials{get: r.Credentials})
	}
	// It ends by close, not with the request: a cancelled build still talks.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		_ = s.Run(ctx, func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			server, client := net.Pipe()
			go func() {
				defer func() { ended <- struct{}{} }()
				_ = k.sessions.HandleConn(ctx, server, meta)
			}()
			return client, nil
		})
	}()
	return &localSession{id: s.ID(), close: func() {
		_ = s.Close()
		cancel(context.Canceled)
		<-ended
	}}, nil
}

// credentials answers BuildKit's question for a registry's password.
type credentials struct {
	auth.UnimplementedAuthServer
	get func(host string) (user, secret string)
}

// Register implements session.Attachable.
func (c credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

// Credentials implements auth.AuthServer.
func (c credentials) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	user, secret := c.get(r.Host)
	return &auth.CredentialsResponse{Username: user, Secret: secret}, nil
}
