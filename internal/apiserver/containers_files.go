package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (r *request) archivePath() (string, error) {
	p := r.get("path")
	if p == "" {
		return "", errs.New(errs.Invalid, "bad parameter: path cannot be empty")
	}
	return p, nil
}

// setPathStat tells of the path in a header, since the body is an archive.
func setPathStat(w http.ResponseWriter, st *containers.PathStat) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(b))
	return nil
}

func (s *Server) archiveStat(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	st, err := s.Containers.StatPath(r.Context(), r.name, p)
	if err != nil {
		return err
	}
	if err := setPathStat(w, st); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) archiveGet(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	tar, st, err := s.Containers.GetArchive(r.Context(), r.name, p)
	if err != nil {
		return err
	}
	defer func() { _ = tar.Close() }()
	if err := setPathStat(w, st); err != nil {
		return err
	}
	out := newBulkStream(w, "application/x-tar")
	_, err = io.Copy(out, tar)
	return out.finish(err)
}

func (s *Server) archivePut(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	err = s.Containers.PutArchive(r.Context(), r.name, p, containers.PutArchiveOptions{
		NoOverwriteDirNonDir: r.flag("noOverwriteDirNonDir"),
		CopyUIDGID:           r.flag("copyUIDGID"),
	}, r.Body)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
