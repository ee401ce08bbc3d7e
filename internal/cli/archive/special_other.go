//go:build !linux

package archive

import (
	"archive/tar"
	"errors"
)

func (u *unpacker) special(*tar.Header, string) error {
	return errors.New("pipes and devices cannot be made on this system")
}
