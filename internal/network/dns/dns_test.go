package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

type fakeView struct {
	names map[string][]netip.Addr
	ups   []Upstream
}

func (v fakeView) Lookup(name string) ([]netip.Addr, bool) {
	as, ok := v.names[name]
	return append([]netip.Addr(nil), as...), ok
}

func (v fakeView) Reverse(a netip.Addr) (string, bool) {
	for n, as := range v.names {
		if len(as) == 1 && as[0] == a {
			return n + ".net", true
		}
	}
	return "", false
}

func (v fakeView) Upstreams() []Upstream { return v.ups }

// answering is an upstream that gives the reply to whatever is asked.
func answering(reply func(q *dns.Msg) *dns.Msg) Upstream {
	return Upstream{
		Addr: netip.MustParseAddrPort("192.0.2.1:53"),
		Dial: func(_ context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer func() { _ = theirs.Close() }()
				c := dns.Conn{Conn: theirs}
				q, err := c.ReadMsg()
				if err != nil {
					return
				}
				if r := reply(q); r != nil {
					_ = c.WriteMsg(r)
				}
			}()
			return ours, nil
		},
	}
}

func broken() Upstream {
	return Upstream{Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		return nil, fmt.Errorf("no route")
	}}
}

func code(rcode int) Upstream {
	return answering(func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, rcode) })
}

func TestAnswers(t *testing.T) {
	names := map[string][]netip.Addr{
		"db": {netip.MustParseAddr("172.18.0.2")}, "db6": {netip.MustParseAddr("fd00::2")},
		"both": {netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("fd00::3")},
	}
	reverse6, _ := dns.ReverseAddr("fd00::2")
	example := answering(func(q *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.80")
		r.Answer = []dns.RR{rr}
		return r
	})
	foreign := answering(func(q *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Question[0].Name = "evil.test."
		return r
	})
	question := func(name string, typ uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, typ) }
	notify := question("db.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	two := question("db.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	reply := question("db.", dns.TypeA)
	reply.Response = true
	for name, tc := range map[string]struct {
		q    *dns.Msg
		ups  []Upstream
		want string
	}{
		"a container":                        {q: question("Db.", dns.TypeA), want: "NOERROR Db. A 172.18.0.2"},
		"its IPv6 address":                   {q: question("db.", dns.TypeAAAA), want: "NOERROR"},
		"a container with IPv6":              {q: question("both.", dns.TypeAAAA), want: "NOERROR both. AAAA fd00::3"},
		"its IPv4 address":                   {q: question("both.", dns.TypeA), want: "NOERROR both. A 172.18.0.3"},
		"a container without IPv4":           {q: question("db6.", dns.TypeA), want: "NOERROR"},
		"the reverse of IPv6":                {q: question(strings.ToUpper(reverse6), dns.TypePTR), want: "NOERROR " + strings.ToUpper(reverse6) + " PTR db6.net."},
		"a short reverse of IPv6":            {q: question("2.0.ip6.arpa.", dns.TypePTR), want: "SERVFAIL"},
		"a strange reverse of IPv6":          {q: question("x"+reverse6[1:], dns.TypePTR), want: "SERVFAIL"},
		"its reverse":                        {q: question("2.0.18.172.in-addr.arpa.", dns.TypePTR), want: "NOERROR 2.0.18.172.in-addr.arpa. PTR db.net."},
		"an unknown reverse":                 {q: question("3.0.18.172.in-addr.arpa.", dns.TypePTR), ups: []Upstream{code(dns.RcodeNameError)}, want: "NXDOMAIN"},
		"a strange reverse":                  {q: question("x.in-addr.arpa.", dns.TypePTR), want: "SERVFAIL"},
		"another name":                       {q: question("example.com.", dns.TypeA), ups: []Upstream{example}, want: "NOERROR example.com. A 192.0.2.80"},
		"another name without upstream":      {q: question("example.com.", dns.TypeA), want: "SERVFAIL"},
		"an upstream that is down":           {q: question("example.com.", dns.TypeA), ups: []Upstream{broken(), example}, want: "NOERROR example.com. A 192.0.2.80"},
		"an upstream that fails":             {q: question("example.com.", dns.TypeA), ups: []Upstream{code(dns.RcodeServerFailure), example}, want: "NOERROR example.com. A 192.0.2.80"},
		"an upstream that does not know":     {q: question("example.com.", dns.TypeA), ups: []Upstream{code(dns.RcodeNameError), example}, want: "NXDOMAIN"},
		"upstreams that all refuse":          {q: question("example.com.", dns.TypeA), ups: []Upstream{code(dns.RcodeRefused)}, want: "REFUSED"},
		"an answer to another question":      {q: question("example.com.", dns.TypeA), ups: []Upstream{foreign}, want: "SERVFAIL"},
		"an operation that is not ours":      {q: notify, want: "NOTIMP"},
		"two questions":                      {q: two, want: "FORMERR"},
		"an answer instead of a question":    {q: reply, want: ""},
		"a class that is not the internet's": {q: &dns.Msg{Question: []dns.Question{{Name: "db.", Qtype: dns.TypeA, Qclass: dns.ClassCHAOS}}}, want: "SERVFAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{view: fakeView{names, tc.ups}, log: slog.New(slog.DiscardHandler)}
			r := s.answer(t.Context(), tc.q, false)
			got := ""
			if r != nil {
				got = dns.RcodeToString[r.Rcode]
				if r.Id != tc.q.Id {
					t.Errorf("id %d, want %d", r.Id, tc.q.Id)
				}
				for _, rr := range r.Answer {
					switch rr := rr.(type) {
					case *dns.A:
						got += " " + rr.Hdr.Name + " A " + rr.A.String()
					case *dns.AAAA:
						got += " " + rr.Hdr.Name + " AAAA " + rr.AAAA.String()
					case *dns.PTR:
						got += " " + rr.Hdr.Name + " PTR " + rr.Ptr
					}
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// many is a name with more addresses than a plain datagram has room for.
func serveMany(t *testing.T) (udp, tcp string) {
	t.Helper()
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
	}
	uc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tl, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(uc, tl, fakeView{names: map[string][]netip.Addr{"many": many}}, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return uc.LocalAddr().String(), tl.Addr().String()
}

func TestLongAnswersAreCutOverUDP(t *testing.T) {
	udp, tcp := serveMany(t)
	for name, tc := range map[string]struct {
		net, addr string
		edns      uint16
		cut       bool
	}{
		"plain UDP":          {net: "udp", addr: udp, cut: true},
		"UDP with some room": {net: "udp", addr: udp, edns: 1232, cut: true},
		"UDP with room":      {net: "udp", addr: udp, edns: 4096},
		"TCP":                {net: "tcp", addr: tcp},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion("many.", dns.TypeA)
			if tc.edns > 0 {
				q.SetEdns0(tc.edns, false)
			}
			c := dns.Client{Net: tc.net, UDPSize: max(tc.edns, dns.MinMsgSize), Timeout: 5 * time.Second}
			r, _, err := c.Exchange(q, tc.addr)
			if err != nil {
				t.Fatal(err)
			}
			if r.Truncated != tc.cut || !tc.cut && len(r.Answer) != 200 {
				t.Errorf("truncated %v with %d answers", r.Truncated, len(r.Answer))
			}
		})
	}
}

func TestReverseAddr(t *testing.T) {
	for in, want := range map[string]string{
		"4.3.2.1.in-addr.arpa.": "1.2.3.4", "4.3.2.1.IN-ADDR.ARPA.": "1.2.3.4",
		"3.2.1.in-addr.arpa.": "", "5.4.3.2.1.in-addr.arpa.": "", "x.3.2.1.in-addr.arpa.": "", "db.": "",
	} {
		a, ok := reverseAddr(in)
		got := ""
		if ok {
			got = a.String()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
}

// FuzzAnswer: whatever a container sends, the reply is one that can be sent.
func FuzzAnswer(f *testing.F) {
	for _, q := range []*dns.Msg{
		new(dns.Msg).SetQuestion("db.", dns.TypeA),
		new(dns.Msg).SetQuestion("2.0.18.172.in-addr.arpa.", dns.TypePTR),
		new(dns.Msg).SetEdns0(4096, true).SetQuestion("example.com.", dns.TypeANY),
	} {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := &Server{view: fakeView{names: map[string][]netip.Addr{"db": {netip.MustParseAddr("172.18.0.2")}}}, log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, data []byte) {
		q := new(dns.Msg)
		if q.Unpack(data) != nil {
			return
		}
		if r := s.answer(t.Context(), q, true); r != nil {
			r.Truncate(dns.MinMsgSize)
			if _, err := r.Pack(); err != nil {
				if _, qerr := q.Pack(); qerr == nil {
					t.Errorf("cannot pack the reply: %v\n%s", err, r)
				}
			}
		}
	})
}
