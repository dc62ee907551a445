package send

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// dialTimeout bounds one connection attempt within a request's own timeout.
const dialTimeout = 5 * time.Second

// metadata are the addresses that clouds give to their metadata services, and
// the link-local networks that they are part of. No receiver lives there.
var metadata = prefixes(
	"169.254.0.0/16",     // IPv4 link-local: AWS, GCP, Azure, most others
	"fe80::/10",          // IPv6 link-local
	"fd00:ec2::254/128",  // AWS
	"fd20:ce::254/128",   // GCP
	"100.100.100.200/32", // Alibaba Cloud
	"192.0.0.192/32",     // Oracle Cloud
	"168.63.129.16/32",   // Azure
)

// special are the networks that no public receiver can be in: private, loopback,
// link-local, documentation, multicast, reserved, and the prefixes that embed an
// IPv4 address.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
	"3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	"168.63.129.16/32",
)

func prefixes(list ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

// Guard says which addresses may be connected to.
type Guard int

const (
	// Operator allows everything but metadata services: for receivers in the
	// operator's own file, which may well be in a private network.
	Operator Guard = iota
	// Strict allows public addresses only: for subscribers whom nobody vetted.
	Strict
)

// Check returns an error when addr may not be connected to.
func (g Guard) Check(addr netip.Addr) error {
	refused := metadata
	if g == Strict {
		refused = special
	}
	for _, form := range forms(addr) {
		for _, p := range refused {
			if p.Contains(form) {
				return fmt.Errorf("address %s is not allowed: it is in %s", addr, p)
			}
		}
	}
	return nil
}

// metadataHosts are the names that resolvers of Google's cloud and of AWS give
// their metadata services.
var metadataHosts = []string{
	"metadata", "metadata.google.internal", "metadata.goog",
	"instance-data", "instance-data.ec2.internal",
}

// checkHost returns an error when a proxy must not be asked for host: what it is
// a name of is the proxy's to find out, but an address is checked in whatever
// spelling a proxy may understand (0xa9fea9fe, 2852039166, 0251.0376.0251.0376).
func (g Guard) checkHost(host string) error {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if slices.Contains(metadataHosts, host) {
		return fmt.Errorf("host %s is not allowed", host)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.Check(addr)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if digits, hex := strings.CutPrefix(last, "0x"); isNumber(digits, hex) {
		return errors.New("an address that is not written in the usual way is not allowed")
	}
	return nil
}

// isNumber reports whether digits, of which there may be none after 0x, are a
// number. No name of a host ends with such a label.
func isNumber(digits string, hex bool) bool {
	allowed := "0123456789"
	if hex {
		allowed += "abcdef"
	}
	return (hex || digits != "") && strings.Trim(digits, allowed) == ""
}

// forms returns an address without its zone, and the IPv4 address that it
// stands for if it is an IPv6 address that embeds one.
func forms(addr netip.Addr) []netip.Addr {
	addr = addr.WithZone("").Unmap()
	all := []netip.Addr{addr}
	if !addr.Is6() {
		return all
	}
	b := addr.As16()
	for _, e := range embeddings {
		if !e.within.Contains(addr) || !bytes.HasPrefix(b[8:], e.marks) {
			continue
		}
		var four [4]byte
		for i, at := range e.at {
			four[i] = b[at] ^ e.mask
		}
		all = append(all, netip.AddrFrom4(four))
	}
	return all
}

// embeddings are the ways in which IPv6 addresses carry an IPv4 address: in which
// network, at which bytes, xor what, if the second half begins with marks.
var embeddings = []struct {
	within netip.Prefix
	at     [4]int
	mask   byte
	marks  []byte
}{
	{within: netip.MustParsePrefix("::/96"), at: last4},                                       // IPv4-compatible
	{within: netip.MustParsePrefix("::ffff:0:0:0/96"), at: last4},                             // IPv4-translated
	{within: netip.MustParsePrefix("64:ff9b::/96"), at: last4},                                // NAT64
	{within: netip.MustParsePrefix("64:ff9b:1::/48"), at: last4},                              // local NAT64 of length 96
	{within: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{6, 7, 9, 10}},                // local NAT64 of length 48
	{within: netip.MustParsePrefix("2002::/16"), at: [4]int{2, 3, 4, 5}},                      // 6to4
	{within: netip.MustParsePrefix("2001::/32"), at: last4, mask: 0xff},                       // Teredo
	{within: netip.MustParsePrefix("::/0"), at: last4, marks: []byte{0x00, 0x00, 0x5e, 0xfe}}, // ISATAP
	{within: netip.MustParsePrefix("::/0"), at: last4, marks: []byte{0x02, 0x00, 0x5e, 0xfe}}, // ISATAP
}

var last4 = [4]int{12, 13, 14, 15}

// dialer returns a dialer that checks the very address it connects to, after
// DNS, so that neither a spelling nor a second answer of DNS gets around it.
func (g Guard) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: dialTimeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q is not allowed: %w", address, err)
			}
			return g.Check(at.Addr())
		},
	}
}
