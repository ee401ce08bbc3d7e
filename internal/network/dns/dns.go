// Package dns answers names inside a sandbox: those of the containers that it
// can reach by itself, others by asking on.
package dns

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

const (
	ttl            = 600 // seconds, as docker
	upstreamWait   = 4 * time.Second
	maxInFlight    = 256 // questions of one sandbox at a time
	maxConnections = 32  // of one sandbox over TCP
	maxUDP         = 4096
)

// View is what one sandbox knows. Names are in lower case, without a final dot.
type View interface {
	// Lookup finds a container's addresses.
	Lookup(name string) (addrs []netip.Addr, known bool)
	// Reverse finds the name of a container.
	Reverse(a netip.Addr) (name string, known bool)
	// Upstreams are asked for other names, in their order; none if the sandbox
	// must not reach outside.
	Upstreams() []Upstream
}

// Upstream is a server to ask on.
type Upstream struct {
	Addr netip.AddrPort
	Dial func(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error)
}

// Server answers on two sockets.
type Server struct {
	view     View
	log      *slog.Logger
	udp, tcp *dns.Server
	closers  []func() error
	slots    chan struct{}
	ctx      context.Context //nolint:containedctx // ends what is in flight on Close
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

// Serve begins to answer; the sockets are the server's from then on.
func Serve(udp *net.UDPConn, tcp net.Listener, v View, log *slog.Logger) *Server {
	s := &Server{view: v, log: log, slots: make(chan struct{}, maxInFlight)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	tcp = netutil.LimitListener(tcp, maxConnections)
	s.closers = []func() error{udp.Close, tcp.Close}
	s.udp = &dns.Server{PacketConn: udp, Handler: s, UDPSize: maxUDP}
	s.tcp = &dns.Server{Listener: tcp, Handler: s, ReadTimeout: 10 * time.Second, MaxTCPQueries: 64}
	s.done.Go(func() { s.run(s.udp) })
	s.done.Go(func() { s.run(s.tcp) })
	return s
}

func (s *Server) run(d *dns.Server) {
	if err := d.ActivateAndServe(); err != nil && s.ctx.Err() == nil {
		s.log.ErrorContext(s.ctx, "a sandbox's resolver ended", "error", err)
	}
}

// Close ends the server without waiting for questions in flight.
func (s *Server) Close() {
	s.cancel()
	for _, c := range s.closers {
		_ = c()
	}
	// The library's servers notice their closed sockets; those that were not
	// yet active refuse to start on them.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = s.udp.ShutdownContext(ctx), s.tcp.ShutdownContext(ctx)
		s.done.Wait()
	}()
}

// ServeDNS answers one question: the library calls it, on a goroutine each.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return // a flood: whoever means it asks again
	}
	_, overUDP := w.RemoteAddr().(*net.UDPAddr)
	r := s.answer(s.ctx, q, overUDP)
	if r == nil {
		return
	}
	r.Compress = true
	size := dns.MaxMsgSize
	if overUDP {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = min(max(int(o.UDPSize()), dns.MinMsgSize), maxUDP)
		}
	}
	r.Truncate(size)
	_ = w.WriteMsg(r)
}

// answer makes the reply to a message.
func (s *Server) answer(ctx context.Context, q *dns.Msg, overUDP bool) *dns.Msg {
	switch {
	case q.Response:
		return nil
	case q.Opcode != dns.OpcodeQuery:
		return new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	if r := s.own(q); r != nil {
		return r
	}
	return s.forward(ctx, q, overUDP)
}

// own answers for what the sandbox knows; nil for everything else.
func (s *Server) own(q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	if question.Qclass != dns.ClassINET {
		return nil
	}
	if question.Qtype == dns.TypePTR {
		return s.ownReverse(q)
	}
	addrs, known := s.view.Lookup(strings.ToLower(strings.TrimSuffix(question.Name, ".")))
	if !known {
		return nil
	}
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = true
	// Several containers of one name share the load.
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, a := range addrs {
		rr := record(question.Name, a)
		if question.Qtype == dns.TypeANY || question.Qtype == rr.Header().Rrtype {
			r.Answer = append(r.Answer, rr)
		}
	}
	return r // the name exists, perhaps without such a record
}

func record(name string, a netip.Addr) dns.RR {
	h := dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
	if a.Is4() {
		return &dns.A{Hdr: h, A: a.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
}

func (s *Server) ownReverse(q *dns.Msg) *dns.Msg {
	a, ok := reverseAddr(q.Question[0].Name)
	if !ok {
		return nil
	}
	name, ok := s.view.Reverse(a)
	if !ok {
		return nil
	}
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = true
	r.Answer = []dns.RR{&dns.PTR{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl},
		Ptr: dns.Fqdn(name),
	}}
	return r
}

// reverseAddr reads d.c.b.a.in-addr.arpa, and 32 nibbles before ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	nibbles := strings.Split(rest, ".")
	if !ok || len(nibbles) != 32 || len(rest) != 63 {
		return netip.Addr{}, false
	}
	slices.Reverse(nibbles)
	b, err := hex.DecodeString(strings.Join(nibbles, ""))
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}

// forward asks the upstreams in their order. One that does not answer, or fails,
// is passed over; the last failure is better than none.
func (s *Server) forward(ctx context.Context, q *dns.Msg, overUDP bool) *dns.Msg {
	var failed *dns.Msg
	for _, u := range s.view.Upstreams() {
		r, err := ask(ctx, u, q, overUDP)
		if err != nil {
			s.log.DebugContext(ctx, "an upstream resolver does not answer", "server", u.Addr.String(), "error", err)
			continue
		}
		r.Id = q.Id
		if r.Rcode != dns.RcodeServerFailure && r.Rcode != dns.RcodeRefused {
			return r
		}
		failed = r
	}
	if failed != nil {
		return failed
	}
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

var errForeign = errors.New("the answer is to another question")

// ask puts the question to one upstream, under an id of our own.
func ask(ctx context.Context, u Upstream, q *dns.Msg, overUDP bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamWait)
	defer cancel()
	network := "tcp"
	if overUDP {
		network = "udp"
	}
	raw, err := u.Dial(ctx, network, u.Addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := dns.Conn{Conn: raw, UDPSize: dns.MaxMsgSize}
	out := q.Copy()
	out.Id = dns.Id()
	if err := conn.WriteMsg(out); err != nil {
		return nil, err
	}
	for {
		r, err := conn.ReadMsg()
		if err != nil {
			return nil, err
		}
		if r.Id == out.Id && r.Response && len(r.Question) == 1 &&
			strings.EqualFold(r.Question[0].Name, out.Question[0].Name) && r.Question[0].Qtype == out.Question[0].Qtype {
			return r, nil
		}
		if !overUDP {
			return nil, errForeign
		}
	}
}
