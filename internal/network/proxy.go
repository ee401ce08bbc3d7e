package network

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The sockets that reserve ports are served in user space. Nothing comes to them
// while the firewall's table stands, but over IPv6 what is for a container without
// it, and what is for loopback and link-local addresses.

const (
	proxyDialTimeout = 5 * time.Second
	proxyMaxConns    = 1024 // of one port: each costs the daemon two descriptors
	proxyUDPIdle     = 90 * time.Second
	proxyUDPMax      = 512 // clients of one port
)

// tcpProxy hands connections on to a container.
type tcpProxy struct {
	l  net.Listener
	to netip.AddrPort

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
	down  bool
}

func (m *Manager) proxyTCP(l net.Listener, to netip.AddrPort) io.Closer {
	p := &tcpProxy{l: l, to: to, conns: map[net.Conn]struct{}{}}
	go p.accept()
	return p
}

func (p *tcpProxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() || !p.up() {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors: others may close some
			continue
		}
		if !p.keep(c) {
			_ = c.Close()
			continue
		}
		go p.serve(c)
	}
}

func (p *tcpProxy) up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.down
}

func (p *tcpProxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || len(p.conns) >= 2*proxyMaxConns {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *tcpProxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *tcpProxy) serve(client net.Conn) {
	defer p.drop(client)
	d := net.Dialer{Timeout: proxyDialTimeout}
	d.SetMultipathTCP(false)
	server, err := d.Dial("tcp", p.to.String())
	if err != nil {
		return
	}
	if !p.keep(server) {
		_ = server.Close()
		return
	}
	defer p.drop(server)
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client) })
	pipe(client, server)
	both.Wait()
}

// pipe copies one direction and passes its end on.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if tc, ok := to.(*net.TCPConn); ok && err == nil {
		_ = tc.CloseWrite()
		return
	}
	_, _ = to.Close(), from.Close()
}

// Close ends the proxy and its connections.
func (p *tcpProxy) Close() error {
	p.mu.Lock()
	p.down = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	return p.l.Close()
}

// udpProxy hands datagrams on to a container and its answers back.
type udpProxy struct {
	c  *net.UDPConn
	to netip.AddrPort

	mu      sync.Mutex // guards what follows
	clients map[netip.AddrPort]*net.UDPConn
	down    bool
}

func (m *Manager) proxyUDP(c *net.UDPConn, to netip.AddrPort) io.Closer {
	p := &udpProxy{c: c, to: to, clients: map[netip.AddrPort]*net.UDPConn{}}
	go p.serve()
	return p
}

func (p *udpProxy) serve() {
	buf := make([]byte, 2048) // grown when a datagram fills it
	for {
		n, from, err := p.c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if p.ended() {
				return
			}
			continue // an ICMP error of somebody before
		}
		if n == len(buf) && n < 1<<16 {
			buf = make([]byte, 1<<16) // this one may be cut; its sender repeats it
			continue
		}
		if server := p.server(from); server != nil {
			_, _ = server.Write(buf[:n])
		}
	}
}

func (p *udpProxy) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// server is the socket towards the container for a client's datagrams.
func (p *udpProxy) server(client netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.clients[client]; ok {
		return s
	}
	if p.down || len(p.clients) >= proxyUDPMax {
		return nil
	}
	s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.to))
	if err != nil {
		return nil
	}
	p.clients[client] = s
	go p.answer(client, s)
	return s
}

func (p *udpProxy) answer(client netip.AddrPort, server *net.UDPConn) {
	defer func() {
		_ = server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.clients, client)
	}()
	buf := make([]byte, 1<<16)
	for {
		_ = server.SetReadDeadline(time.Now().Add(proxyUDPIdle))
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if _, err := p.c.WriteToUDPAddrPort(buf[:n], client); err != nil {
			return
		}
	}
}

// Close ends the proxy.
func (p *udpProxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, s := range p.clients {
		_ = s.Close()
	}
	return p.c.Close()
}
