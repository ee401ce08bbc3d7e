package authfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"
)

func TestStoreAndErase(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "config.json")
	before := `{"auths":{"https://old.example/v1/":{"auth":"dTpw"}},"psFormat":"{{.ID}}","unknown":{"kept":true}}`
	if err := os.WriteFile(p, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.Format("ps") != "{{.ID}}" {
		t.Error(f.Format("ps"))
	}
	if a, err := f.Get("old.example"); err != nil || a.Username != "u" || a.Password != "p" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := f.Get("nobody.example"); err != nil || a != (registry.AuthConfig{}) {
		t.Errorf("%+v %v", a, err)
	}
	want := registry.AuthConfig{ServerAddress: "reg:5000", Username: "me", Password: "a:b"}
	if _, err := f.Store(want); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(p)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if f, err = Load(dir); err != nil {
		t.Fatal(err)
	}
	got, err := f.Get("reg:5000")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if n := len(f.All()); n != 2 {
		t.Errorf("%d credentials", n)
	}
	if ok, err := f.Erase("old.example"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := f.Erase("old.example"); ok || err != nil {
		t.Error(ok, err)
	}
	var doc map[string]any
	b, _ := os.ReadFile(p)
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"kept": true}, doc["unknown"]); diff != "" {
		t.Error(diff)
	}
}

// A helper is a program with a fixed name along the path.
func TestHelper(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
case $1 in
get) read s; [ -f "$HELPER_DIR/$s" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$HELPER_DIR/$s";;
store) cat > "$HELPER_DIR/reg";;
erase) read s; rm "$HELPER_DIR/$s";;
list) echo '{"reg":"me"}';;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("HELPER_DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credsStore":"test","credHelpers":{"broken":"nosuch"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Store(registry.AuthConfig{ServerAddress: "reg", Username: "me", Password: "secret"})
	if err != nil || h != "test" {
		t.Fatal(h, err)
	}
	if b, _ := os.ReadFile(f.Path()); strings.Contains(string(b), "secret") {
		t.Error("the secret is in the file")
	}
	a, err := f.Get("reg")
	if err != nil || a.Username != "me" || a.Password != "secret" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := f.Get("other"); err != nil || a != (registry.AuthConfig{}) {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := f.Get("broken"); err == nil {
		t.Error("a missing helper is no error")
	}
	if n := len(f.All()); n != 1 {
		t.Errorf("%d credentials", n)
	}
	if ok, err := f.Erase("reg"); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestBadFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Error(err)
	}
}

func TestProxy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"proxies":{"default":{"httpProxy":"http://p","noProxy":"x"},"unix:///a":{"httpProxy":"http://q"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"HTTP_PROXY": "http://p", "http_proxy": "http://p", "NO_PROXY": "x", "no_proxy": "x"}, f.Proxy("unix:///b")); diff != "" {
		t.Error(diff)
	}
	if got := f.Proxy("unix:///a")["http_proxy"]; got != "http://q" {
		t.Error(got)
	}
}
