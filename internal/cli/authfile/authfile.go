// Package authfile reads and writes the client's configuration in docker's
// format, config.json: credentials of registries, kept in the file or by a
// credential helper, and a few preferences.
package authfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// IndexServer is the key of Docker Hub's credentials.
const IndexServer = "https://index.docker.io/v1/"

// File is a loaded configuration. Fields that it does not know survive a Save.
type File struct {
	path  string
	known known
	raw   map[string]json.RawMessage
}

type known struct {
	Auths            map[string]auth   `json:"auths"`
	HTTPHeaders      map[string]string `json:"HttpHeaders,omitempty"`
	CredentialsStore string            `json:"credsStore,omitempty"`
	CredHelpers      map[string]string `json:"credHelpers,omitempty"`
	DetachKeys       string            `json:"detachKeys,omitempty"`
	PsFormat         string            `json:"psFormat,omitempty"`
	ImagesFormat     string            `json:"imagesFormat,omitempty"`
	NetworksFormat   string            `json:"networksFormat,omitempty"`
	VolumesFormat    string            `json:"volumesFormat,omitempty"`
	StatsFormat      string            `json:"statsFormat,omitempty"`
	Proxies          map[string]Proxy  `json:"proxies,omitempty"`
}

// Proxy is what containers and builds get as their proxy variables.
type Proxy struct {
	HTTP  string `json:"httpProxy,omitempty"`
	HTTPS string `json:"httpsProxy,omitempty"`
	No    string `json:"noProxy,omitempty"`
	FTP   string `json:"ftpProxy,omitempty"`
	All   string `json:"allProxy,omitempty"`
}

type auth struct {
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Dir is the directory of the configuration: DOCKER_CONFIG or ~/.docker.
func Dir() string {
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".docker"
	}
	return filepath.Join(home, ".docker")
}

// Load reads dir/config.json; a missing file is an empty configuration.
func Load(dir string) (*File, error) {
	f := &File{path: filepath.Join(dir, "config.json"), raw: map[string]json.RawMessage{}}
	b, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("loading config file: %w", err)
	case len(bytes.TrimSpace(b)) == 0:
		return f, nil
	}
	if err := json.Unmarshal(b, &f.raw); err != nil {
		return nil, fmt.Errorf("loading config file: %s: %w", f.path, err)
	}
	if err := json.Unmarshal(b, &f.known); err != nil {
		return nil, fmt.Errorf("loading config file: %s: %w", f.path, err)
	}
	return f, nil
}

// Path is the file's name.
func (f *File) Path() string { return f.path }

// DetachKeys, and the formats below, are preferences for lists.
func (f *File) DetachKeys() string { return f.known.DetachKeys }

// Format is the preferred format of a noun's list: ps, images, networks,
// volumes or stats.
func (f *File) Format(noun string) string {
	switch noun {
	case "ps":
		return f.known.PsFormat
	case "images":
		return f.known.ImagesFormat
	case "networks":
		return f.known.NetworksFormat
	case "volumes":
		return f.known.VolumesFormat
	case "stats":
		return f.known.StatsFormat
	}
	return ""
}

// Proxy returns the proxy variables for containers of a daemon.
func (f *File) Proxy(host string) map[string]string {
	p, ok := f.known.Proxies[host]
	if !ok {
		p = f.known.Proxies["default"]
	}
	out := map[string]string{}
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HTTP}, {"HTTPS_PROXY", p.HTTPS}, {"NO_PROXY", p.No}, {"FTP_PROXY", p.FTP}, {"ALL_PROXY", p.All},
	} {
		if v.value != "" {
			out[v.name], out[strings.ToLower(v.name)] = v.value, v.value
		}
	}
	return out
}

// helper is the credential helper for a server, or "".
func (f *File) helper(server string) string {
	if h, ok := f.known.CredHelpers[server]; ok {
		return h
	}
	return f.known.CredentialsStore
}

// Get returns the credentials for a server; none is an empty AuthConfig.
func (f *File) Get(server string) (registry.AuthConfig, error) {
	if h := f.helper(server); h != "" {
		return helperGet(h, server)
	}
	a, ok := f.known.Auths[server]
	if !ok {
		// Old entries carry a scheme and a path.
		for _, k := range sortedKeys(f.known.Auths) {
			if hostOf(k) == server {
				a = f.known.Auths[k]
				break
			}
		}
	}
	return a.decode(server)
}

// All returns the credentials for every server that has some; a helper that
// fails is skipped.
func (f *File) All() map[string]registry.AuthConfig {
	out := map[string]registry.AuthConfig{}
	servers := map[string]bool{}
	for k := range f.known.Auths {
		servers[k] = true
	}
	for k := range f.known.CredHelpers {
		servers[k] = true
	}
	if s := f.known.CredentialsStore; s != "" {
		if names, err := helperList(s); err == nil {
			for _, k := range names {
				servers[k] = true
			}
		}
	}
	for k := range servers {
		if a, err := f.Get(k); err == nil && a != (registry.AuthConfig{}) && (a.Username != "" || a.IdentityToken != "" || a.RegistryToken != "") {
			out[k] = a
		}
	}
	return out
}

// Store keeps credentials. It returns the helper that took them, or "" if they
// lie readable in the file.
func (f *File) Store(a registry.AuthConfig) (helper string, err error) {
	if h := f.helper(a.ServerAddress); h != "" {
		if err := helperStore(h, a); err != nil {
			return "", err
		}
		// docker lists the server in the file too, without a secret.
		f.put(a.ServerAddress, auth{})
		return h, f.Save()
	}
	e := auth{IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.IdentityToken == "" || a.Username != "" {
		password := a.Password
		if a.IdentityToken != "" {
			password = ""
		}
		e.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + password))
	}
	f.put(a.ServerAddress, e)
	return "", f.Save()
}

func (f *File) put(server string, e auth) {
	if f.known.Auths == nil {
		f.known.Auths = map[string]auth{}
	}
	f.known.Auths[server] = e
}

// Erase forgets a server and reports whether it was known.
func (f *File) Erase(server string) (bool, error) {
	found := false
	if h := f.helper(server); h != "" {
		if a, err := helperGet(h, server); err == nil && a.Username != "" {
			found = true
			if err := helperErase(h, server); err != nil {
				return true, err
			}
		}
	}
	for k := range f.known.Auths {
		if k == server || hostOf(k) == server {
			delete(f.known.Auths, k)
			found = true
		}
	}
	if !found {
		return false, nil
	}
	return true, f.Save()
}

// Save writes the file, readable by its owner alone, through a temporary one
// beside it: a half written file would lose every login.
func (f *File) Save() error {
	auths := f.known.Auths
	if auths == nil {
		auths = map[string]auth{}
	}
	b, err := json.Marshal(auths)
	if err != nil {
		return err
	}
	f.raw["auths"] = b
	b, err = json.MarshalIndent(f.raw, "", "\t")
	if err != nil {
		return err
	}
	path := f.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".config.json")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(b); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func (a auth) decode(server string) (registry.AuthConfig, error) {
	out := registry.AuthConfig{ServerAddress: server, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a == (auth{}) {
		return registry.AuthConfig{}, nil
	}
	if a.Auth == "" {
		return out, nil
	}
	b, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return registry.AuthConfig{}, fmt.Errorf("invalid auth of %s in the config file: %w", server, err)
	}
	user, pass, ok := strings.Cut(string(b), ":")
	if !ok || user == "" {
		return registry.AuthConfig{}, fmt.Errorf("invalid auth of %s in the config file", server)
	}
	out.Username, out.Password = user, strings.Trim(pass, "\x00")
	return out, nil
}

// hostOf takes the scheme and the path off a server's address.
func hostOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	host, _, _ := strings.Cut(s, "/")
	return host
}

func sortedKeys(m map[string]auth) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
