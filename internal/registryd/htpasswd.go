package registryd

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// htpasswd lets in who gives a name and password of the file.
type htpasswd struct {
	path string
	next http.Handler

	mu     sync.Mutex
	mtime  time.Time           // guarded by mu, as what follows
	users  map[string][]byte   // name → bcrypt hash
	passed map[[32]byte]string // what was let in since the file was read: bcrypt is slow by design
	dummy  []byte              // compared for unknown names, so that they take as long
}

func newHtpasswd(path string, next http.Handler) (*htpasswd, error) {
	dummy, err := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	h := &htpasswd{path: path, next: next, dummy: dummy}
	return h, h.load()
}

// load reads the file if it has changed; the caller holds no lock.
func (h *htpasswd) load() error {
	st, err := os.Stat(h.path)
	if err != nil {
		return errs.Newf(errs.Invalid, "registry: passwords: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users != nil && st.ModTime().Equal(h.mtime) {
		return nil
	}
	data, err := os.ReadFile(h.path)
	if err != nil {
		return errs.Newf(errs.Invalid, "registry: passwords: %w", err)
	}
	users, err := parseHtpasswd(data)
	if err != nil {
		return errs.Newf(errs.Invalid, "registry: %s: %w", h.path, err)
	}
	h.users, h.mtime, h.passed = users, st.ModTime(), map[[32]byte]string{}
	return nil
}

func parseHtpasswd(data []byte) (map[string][]byte, error) {
	users := map[string][]byte{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d is not name:hash", n)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: only bcrypt hashes are accepted (htpasswd -B)", n)
		}
		users[name] = []byte(hash)
	}
	return users, sc.Err()
}

func (h *htpasswd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, password, ok := r.BasicAuth()
	if !ok || !h.check(name, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Registry"`)
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}` + "\n"))
		return
	}
	h.next.ServeHTTP(w, r)
}

func (h *htpasswd) check(name, password string) bool {
	if err := h.load(); err != nil {
		return false
	}
	key := sha256.Sum256([]byte(name + "\x00" + password))
	h.mu.Lock()
	hash, known := h.users[name]
	who, passed := h.passed[key]
	mtime := h.mtime
	h.mu.Unlock()
	if passed && subtle.ConstantTimeCompare([]byte(who), []byte(name)) == 1 {
		return true
	}
	if !known {
		hash = h.dummy
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mtime.Equal(mtime) {
		h.passed[key] = name
	}
	return true
}
