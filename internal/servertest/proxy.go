package servertest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between a client and a server and breaks their connection in the
// ways that networks do.
type Proxy struct {
	listener net.Listener
	dial     func() (net.Conn, error)
	copiers  sync.WaitGroup

	mu      sync.Mutex
	cut     bool                  // guarded by mu; no connection is let through
	muted   bool                  // guarded by mu; answers vanish
	flowing chan struct{}         // guarded by mu; closed while bytes move
	conns   map[net.Conn]struct{} // guarded by mu; both ends of every connection
	tap     func() Tap            // guarded by mu; makes the tap of each connection; nil makes none
}

// Tap hears what a proxy passes on over one connection: questions before the
// server gets them, and answers when the client did. Data is only valid during
// the call. Two goroutines call it, one for each direction.
type Tap func(answer bool, data []byte)

// NewProxy listens on a free loopback port and forwards to target: host:port,
// or the path of a Unix socket.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(target, "/") {
		network = "unix"
	}
	return NewProxyFunc(t, func() (net.Conn, error) { return net.Dial(network, target) })
}

// NewProxyFunc is [NewProxy] for a target that dial connects to anew for each
// connection.
func NewProxyFunc(t testing.TB, dial func() (net.Conn, error)) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for the proxy: %v", err)
	}
	p := &Proxy{listener: ln, dial: dial, flowing: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(p.flowing)
	p.copiers.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.Cut()
		p.copiers.Wait()
	})
	return p
}

// Addr returns the address for clients, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTap sets what makes the tap of each connection from now on.
func (p *Proxy) SetTap(tap func() Tap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tap = tap
}

// Cut closes every connection and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.flow()
	p.closeAll()
}

// Reset closes every connection and lets new ones through.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeAll()
}

// Stall keeps connections open and moves no byte until Heal, which moves what
// came meanwhile.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
		p.flowing = make(chan struct{})
	default:
	}
}

// flow lets bytes move. The caller holds mu.
func (p *Proxy) flow() {
	select {
	case <-p.flowing:
	default:
		close(p.flowing)
	}
}

// Mute lets requests through and swallows the answers until Heal, so that
// clients cannot know what became of their requests.
func (p *Proxy) Mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = true
}

// Heal lets new connections through. Those of a muted time are closed, because
// a part of what the server said is missing in them.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.muted {
		p.closeAll()
	}
	p.cut, p.muted = false, false
	p.flow()
}

func (p *Proxy) closeAll() {
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := p.dial()
		if err != nil {
			_ = client.Close()
			continue
		}
		tap, ok := p.admit(client, server)
		if !ok {
			_ = client.Close()
			_ = server.Close()
			continue
		}
		p.copiers.Go(func() { p.ask(server, client, tap) })
		p.copiers.Go(func() { p.answer(client, server, tap) })
	}
}

// admit takes in a connection and returns its tap, or false while cut.
func (p *Proxy) admit(conns ...net.Conn) (tap Tap, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return nil, false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	if p.tap == nil {
		return func(bool, []byte) {}, true
	}
	return p.tap(), true
}

func (p *Proxy) isMuted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.muted
}

// moving waits while the proxy stalls.
func (p *Proxy) moving() {
	p.mu.Lock()
	flowing := p.flowing
	p.mu.Unlock()
	<-flowing
}

// ask passes on what the client says.
func (p *Proxy) ask(server, client net.Conn, tap Tap) {
	p.forward(server, client, func(data []byte) error {
		tap(false, data)
		_, err := server.Write(data)
		return err
	})
}

// answer passes on what the server says, except while muted.
func (p *Proxy) answer(client, server net.Conn, tap Tap) {
	p.forward(client, server, func(data []byte) error {
		if p.isMuted() {
			return nil
		}
		_, err := client.Write(data)
		if err == nil {
			tap(true, data)
		}
		return err
	})
}

// forward hands what comes from src to pass until either end closes.
func (p *Proxy) forward(dst, src net.Conn, pass func([]byte) error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		p.moving()
		if n > 0 {
			if failed := pass(buf[:n]); failed != nil {
				err = failed
			}
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	delete(p.conns, src)
	delete(p.conns, dst)
	p.mu.Unlock()
	_ = src.Close()
	_ = dst.Close()
}
