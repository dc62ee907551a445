package send

import (
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		addr             string
		operator, strict bool // allowed
	}{
		{"1.1.1.1", true, true},
		{"8.8.8.8", true, true},
		{"2001:4860:4860::8888", true, true},
		{"::ffff:8.8.8.8", true, true},
		{"100.128.0.1", true, true},

		{"127.0.0.1", true, false},
		{"127.8.9.1", true, false},
		{"::1", true, false},
		{"::ffff:127.0.0.1", true, false},
		{"10.1.2.3", true, false},
		{"172.16.0.1", true, false},
		{"172.31.255.255", true, false},
		{"192.168.1.1", true, false},
		{"100.64.0.1", true, false},
		{"198.18.0.1", true, false},
		{"192.0.2.1", true, false},
		{"203.0.113.7", true, false},
		{"198.51.100.7", true, false},
		{"192.88.99.1", true, false},
		{"0.0.0.0", true, false},
		{"0.1.2.3", true, false},
		{"224.0.0.1", true, false},
		{"240.0.0.1", true, false},
		{"255.255.255.255", true, false},
		{"::", true, false},
		{"64:ff9b::7f00:1", true, false},
		{"64:ff9b:1::1", true, false},
		{"::ffff:0:8.8.8.8", true, true},
		{"::ffff:0:10.0.0.1", true, false},
		{"100::1", true, false},
		{"2001::1", true, false},
		{"2001:db8::1", true, false},
		{"2002:7f00:1::", true, false},
		{"3fff::1", true, false},
		{"5f00::1", true, false},
		{"fc00::1", true, false},
		{"fd12:3456::1", true, false},
		{"fec0::1", true, false},
		{"ff02::1", true, false},

		{"169.254.169.254", false, false},
		{"169.254.0.1", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"::ffff:a9fe:a9fe", false, false},
		{"::a9fe:a9fe", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"2002:a9fe:a9fe::", false, false},
		{"::ffff:0:a9fe:a9fe", false, false},
		{"64:ff9b:1:a9fe:a9:fe00::", false, false},
		{"64:ff9b:1:ffff::a9fe:a9fe", false, false},
		{"2001:0:1:2:3:4:5601:5601", false, false},
		{"2001:db8::5efe:a9fe:a9fe", false, false},
		{"fe80::1", false, false},
		{"fe80::1%eth0", false, false},
		{"febf::1", false, false},
		{"fd00:ec2::254", false, false},
		{"fd20:ce::254", false, false},
		{"100.100.100.200", false, false},
		{"192.0.0.192", false, false},
		{"168.63.129.16", false, false},
	} {
		addr := netip.MustParseAddr(c.addr)
		if err := Operator.Check(addr); (err == nil) != c.operator {
			t.Errorf("operator: %s: %v, want allowed %t", c.addr, err, c.operator)
		}
		if err := Strict.Check(addr); (err == nil) != c.strict {
			t.Errorf("strict: %s: %v, want allowed %t", c.addr, err, c.strict)
		}
	}
}
