package authfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// tokenUser is the user name under which helpers keep identity tokens.
const tokenUser = "<token>"

// callHelper runs docker-credential-NAME with a verb; input and output are its
// standard streams.
func callHelper(name, verb, input string) (string, error) {
	if name == "" || strings.ContainsAny(name, `/\`) {
		return "", fmt.Errorf("invalid credential helper %q", name)
	}
	cmd := exec.Command("docker-credential-"+name, verb)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if err != nil {
		// Helpers print what went wrong on their standard output.
		if text != "" {
			return text, errors.New(text)
		}
		return "", fmt.Errorf("credential helper docker-credential-%s: %w", name, err)
	}
	return text, nil
}

func helperGet(name, server string) (registry.AuthConfig, error) {
	text, err := callHelper(name, "get", server)
	if err != nil {
		if strings.Contains(text, "credentials not found") {
			return registry.AuthConfig{}, nil
		}
		return registry.AuthConfig{}, fmt.Errorf("error getting credentials: %w", err)
	}
	var c struct{ ServerURL, Username, Secret string }
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return registry.AuthConfig{}, fmt.Errorf("error getting credentials: docker-credential-%s: %w", name, err)
	}
	a := registry.AuthConfig{ServerAddress: server}
	if c.Username == tokenUser {
		a.IdentityToken = c.Secret
	} else {
		a.Username, a.Password = c.Username, c.Secret
	}
	return a, nil
}

func helperStore(name string, a registry.AuthConfig) error {
	c := struct{ ServerURL, Username, Secret string }{a.ServerAddress, a.Username, a.Password}
	if a.IdentityToken != "" {
		c.Username, c.Secret = tokenUser, a.IdentityToken
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := callHelper(name, "store", string(b)); err != nil {
		return fmt.Errorf("error storing credentials: %w", err)
	}
	return nil
}

func helperErase(name, server string) error {
	if _, err := callHelper(name, "erase", server); err != nil {
		return fmt.Errorf("error erasing credentials: %w", err)
	}
	return nil
}

func helperList(name string) ([]string, error) {
	text, err := callHelper(name, "list", "unused")
	if err != nil {
		return nil, err
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out, nil
}
