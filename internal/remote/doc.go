// Package remote speaks to other people's registries: it resolves names,
// authenticates, fetches, pushes and searches.
//
//	c, err := remote.New(remote.Options{Log: log})
//	repo, err := c.Repository(named, auth)
//	desc, body, err := repo.Manifest(ctx, "latest")
//	r, err := repo.Blob(ctx, layerDesc)
//
// Failures are told in the words that docker's clients know.
package remote
