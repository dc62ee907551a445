package proc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// CheckListen reports whether the process may listen on addr, a host and port
// that the setting called name gives ("alerter.http_address"). Other machines
// may reach it only behind a token, or when the operator said that it may be
// insecure. The error starts with the setting's name and says what to do.
func CheckListen(name, addr string, token secret.String, insecure bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s: %q is not an address such as 127.0.0.1:8082", name, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s: the port of %q is not a number from 0 to 65535", name, addr)
	}
	if token.Set() || insecure || Loopback(host) {
		return nil
	}
	section := name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		section = name[:i]
	}
	return fmt.Errorf("%s: other machines could reach %s without a token: listen on 127.0.0.1:%s, set %s.token_file, or allow it with --insecure",
		name, addr, port, section)
}

// Loopback reports whether a host, by name or number and without a port, is
// this machine and no other. Names other than localhost are not looked up, since
// what they mean may change.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// Listen opens a TCP listener on the address that the setting called name gives.
// The caller closes it. The error names the setting and, where the port is taken,
// says what to do.
func Listen(name, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: another program listens on %s, perhaps another Tocsin: stop it, or set %s (%s) to another address",
			name, addr, name, variableOf(name))
	} else if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // the address stands in our sentence already
		}
		return nil, fmt.Errorf("%s: listen on %s: %w", name, addr, err)
	}
	return ln, nil
}
