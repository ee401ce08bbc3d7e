package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// wire is a client that keeps one connection, and does nothing with an answer
// but count its bytes.
type wire struct {
	http *http.Client
	sock string
}

func newWire(sock string) *wire {
	return &wire{sock: sock, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", sock)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 4,
	}}}
}

func (w *wire) close() { w.http.CloseIdleConnections() }

// open sends a request; a refusal is an error.
func (w *wire) open(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(text)))
	}
	return resp, nil
}

// call makes a request and returns how long its answer was.
func (w *wire) call(ctx context.Context, method, path, body string) (int64, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	resp, err := w.open(ctx, method, path, r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return n, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return n, nil
}

// ask decodes the answer.
func (w *wire) ask(ctx context.Context, method, path, body string, into any) error {
	resp, err := w.open(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into)
}

// hijack posts to a path that answers with a raw stream, and reads it to its end.
func (w *wire) hijack(ctx context.Context, path, body string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", w.sock)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	if err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return "", fmt.Errorf("POST %s: %s: %s", path, resp.Status, text)
	}
	out, err := io.ReadAll(in)
	return string(out), err
}

func filters(key, value string) string {
	b, _ := json.Marshal(map[string][]string{key: {value}})
	return "filters=" + url.QueryEscape(string(b))
}
