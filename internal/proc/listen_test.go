package proc_test

import (
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

func TestCheckListen(t *testing.T) {
	const refusal = "alerter.http_address: other machines could reach 0.0.0.0:8082 without a token: " +
		"listen on 127.0.0.1:8082, set alerter.token_file, or allow it with --insecure"
	for name, test := range map[string]struct {
		addr     string
		token    secret.String
		insecure bool
		err      string
	}{
		"loopback needs nothing":                    {addr: "127.0.0.1:8082"},
		"all of 127/8 is loopback":                  {addr: "127.8.7.6:8082"},
		"so is localhost":                           {addr: "LocalHost:8082"},
		"so is ::1":                                 {addr: "[::1]:8082"},
		"so is an IPv4 address in IPv6":             {addr: "[::ffff:127.0.0.1]:8082"},
		"port 0 lets the system choose":             {addr: "127.0.0.1:0"},
		"all addresses without a token are refused": {addr: "0.0.0.0:8082", err: refusal},
		"with a token they are not":                 {addr: "0.0.0.0:8082", token: "t"},
		"nor when that was allowed":                 {addr: "0.0.0.0:8082", insecure: true},
		"no host means all addresses":               {addr: ":8082", err: "other machines"},
		"all of IPv6":                               {addr: "[::]:8082", err: "other machines"},
		"a private address is not loopback":         {addr: "10.0.0.1:8082", err: "other machines"},
		"a name is not looked up":                   {addr: "localhost.example.com:8082", err: "other machines"},
		"no port":                                   {addr: "127.0.0.1", err: `alerter.http_address: "127.0.0.1" is not an address such as 127.0.0.1:8082`},
		"no port even with a token":                 {addr: "x", token: "t", err: "is not an address"},
		"a port that is a word":                     {addr: "127.0.0.1:http", err: "not a number from 0 to 65535"},
		"a port too high":                           {addr: "127.0.0.1:65536", insecure: true, err: "not a number from 0 to 65535"},
		"an empty text":                             {addr: "", err: "is not an address"},
	} {
		err := proc.CheckListen("alerter.http_address", test.addr, test.token, test.insecure)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListenNamesTheSettingWhoseAddressIsTaken(t *testing.T) {
	first, err := proc.Listen("a.http_address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	addr := first.Addr().String()
	if _, err := proc.Listen("b.http_address", addr); err == nil ||
		err.Error() != "b.http_address: another program listens on "+addr+", perhaps another Tocsin: stop it, "+
			"or set b.http_address (TOCSIN_B_HTTP_ADDRESS) to another address" {
		t.Errorf("got %v", err)
	}
	if _, err := proc.Listen("b.http_address", "192.0.2.1:1"); err == nil || !strings.HasPrefix(err.Error(), "b.http_address: listen on 192.0.2.1:1: ") {
		t.Errorf("an address of no interface: %v", err)
	}
}
