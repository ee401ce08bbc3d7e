package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// newDialStdio is the far end of ssh:// addresses.
func newDialStdio(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Join the standard streams to the daemon's socket",
		Args:   noArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			conn, err := cl.Dial(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			half, ok := conn.(interface{ CloseWrite() error })
			if !ok {
				return errors.New("the connection cannot be closed half-way")
			}
			sent, received := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := io.Copy(conn, a.in)
				_ = half.CloseWrite()
				sent <- err
			}()
			go func() {
				_, err := io.Copy(a.out, conn)
				received <- err
			}()
			select {
			case err := <-received:
				return err
			case err := <-sent:
				if err != nil {
					return err
				}
				return <-received
			}
		},
	}
}
