package apiserver

import (
	"net/http"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Answers of a node that is in no swarm, word for word: clients match on them.
var (
	errNoManager = errs.New(errs.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errNoSwarm   = errs.New(errs.Unavailable, "This node is not part of a swarm")
)

// refuse returns a handler that always answers err.
func refuse(err error) handler {
	return func(*Server, http.ResponseWriter, *request) error { return err }
}

func swarmRoutes() []route {
	noSwarmMode := refuse(errs.New(errs.Unsupported, "swarm mode is not supported"))
	noManager, noSwarm := refuse(errNoManager), refuse(errNoSwarm)
	return []route{
		{"GET", "/swarm", read, 0, noManager},
		{"POST", "/swarm/init", write, 0, noSwarmMode},
		{"POST", "/swarm/join", write, 0, noSwarmMode},
		{"POST", "/swarm/leave", write, 0, noSwarm},
		{"POST", "/swarm/update", write, 0, noManager},
		{"GET", "/swarm/unlockkey", read, 0, noManager},
		{"POST", "/swarm/unlock", write, 0, noManager},
		{"GET", "/services", read, 0, noManager},
		{"POST", "/services/create", write, 0, noManager},
		{"GET", "/services/{id}", read, 0, noManager},
		{"GET", "/services/{id}/logs", read, 0, noManager},
		{"POST", "/services/{id}/update", write, 0, noManager},
		{"DELETE", "/services/{id}", write, 0, noManager},
		{"GET", "/nodes", read, 0, noManager},
		{"GET", "/nodes/{id}", read, 0, noManager},
		{"POST", "/nodes/{id}/update", write, 0, noManager},
		{"DELETE", "/nodes/{id}", write, 0, noManager},
		{"GET", "/tasks", read, 0, noManager},
		{"GET", "/tasks/{id}", read, 0, noManager},
		{"GET", "/tasks/{id}/logs", read, 0, noManager},
		{"GET", "/secrets", read, 25, noManager},
		{"POST", "/secrets/create", write, 25, noManager},
		{"GET", "/secrets/{id}", read, 25, noManager},
		{"POST", "/secrets/{id}/update", write, 25, noManager},
		{"DELETE", "/secrets/{id}", write, 25, noManager},
		{"GET", "/configs", read, 30, noManager},
		{"POST", "/configs/create", write, 30, noManager},
		{"GET", "/configs/{id}", read, 30, noManager},
		{"POST", "/configs/{id}/update", write, 30, noManager},
		{"DELETE", "/configs/{id}", write, 30, noManager},
	}
}

func pluginRoutes() []route {
	noPlugins := refuse(errs.New(errs.Unsupported, "managed plugins are not supported"))
	return []route{
		{"GET", "/plugins", read, 0, (*Server).pluginList},
		{"GET", "/plugins/{name}/json", read, 0, noSuchPlugin},
		{"GET", "/plugins/privileges", read, 0, noPlugins},
		{"POST", "/plugins/pull", write, 0, noPlugins},
		{"POST", "/plugins/create", write, 0, noPlugins},
		{"POST", "/plugins/{name}/enable", write, 0, noSuchPlugin},
		{"POST", "/plugins/{name}/disable", write, 0, noSuchPlugin},
		{"POST", "/plugins/{name}/upgrade", write, 26, noSuchPlugin},
		{"POST", "/plugins/{name}/push", write, 0, noSuchPlugin},
		{"POST", "/plugins/{name}/set", write, 0, noSuchPlugin},
		{"DELETE", "/plugins/{name}", write, 0, noSuchPlugin},
	}
}

// pluginList is always empty.
func (s *Server) pluginList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err == nil {
		err = f.Check("capability", "enable", "enabled")
	}
	return answer(w, []any{}, err)
}

func noSuchPlugin(_ *Server, _ http.ResponseWriter, r *request) error {
	return errs.Newf(errs.NotFound, "plugin %q not found", r.name)
}

// refusedRoutes are docker's, and not offered here.
func refusedRoutes() []route {
	noAttestations := refuse(errs.New(errs.Unsupported, "attestations of images are not supported"))
	return []route{
		{"GET", "/images/{name}/attestations", read, 55, noAttestations},
	}
}
