package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

const (
	// clientPing is how often an idle connection is tried, and clientPingTimeout
	// after how long without an answer it is given up and made anew: a server
	// that vanished is noticed within 25 s even by a watcher that hears nothing.
	clientPing        = 20 * time.Second
	clientPingTimeout = 5 * time.Second
	// maxReconnect bounds the wait between attempts, so that a server is found
	// again soon after its restart. gRPC's default of 120 s is for servers of others.
	maxReconnect = 5 * time.Second
	// minConnect is how long one attempt to connect may take.
	minConnect = 5 * time.Second
)

// DialOptions are how a client calls.
type DialOptions struct {
	// Token is sent as "authorization: Bearer <token>" with each call.
	Token secret.String
	// Insecure allows to send the token unencrypted to another machine.
	Insecure bool
	// WaitForReady makes calls wait for the server, until their context ends,
	// instead of failing with UNAVAILABLE while it is away.
	WaitForReady bool
	// MaxMessage is the largest message in bytes, both ways. Zero means [MaxMessage].
	MaxMessage int
	// Dialer replaces the network, as in tests and in the all-in-one process; the
	// target may then be any text after "passthrough:///". Nil means TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
}

// Dial returns a client for the server at target, "host:port". It does not wait
// for a connection, keeps trying to have one, and is closed by the caller. The
// errors of calls have the kinds of package fault. Dial returns an error when
// the target cannot be parsed, or a token would travel in the clear to another
// machine.
func Dial(target string, o DialOptions) (*grpc.ClientConn, error) {
	if o.MaxMessage == 0 {
		o.MaxMessage = MaxMessage
	}
	if err := checkTarget(target, o); err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(o.MaxMessage), grpc.MaxCallSendMsgSize(o.MaxMessage), grpc.WaitForReady(o.WaitForReady)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPing, Timeout: clientPingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: minConnect,
		}),
		grpc.WithUserAgent("tocsin/" + proc.ThisBuild().Version),
		grpc.WithUnaryInterceptor(unaryFault),
		grpc.WithStreamInterceptor(streamFault),
	}
	if o.Token.Set() {
		options = append(options, grpc.WithPerRPCCredentials(bearer{o.Token}))
	}
	if o.Dialer != nil {
		options = append(options, grpc.WithContextDialer(o.Dialer))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}

// checkTarget refuses to send a token in the clear over a network.
func checkTarget(target string, o DialOptions) error {
	if !o.Token.Set() || o.Insecure || o.Dialer != nil {
		return nil
	}
	if strings.HasPrefix(target, "unix:") {
		return nil
	}
	address := target[strings.LastIndexByte(target, '/')+1:]
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if !proc.Loopback(host) {
		return errors.New("the token would travel unencrypted to another machine: allow it with insecure, or go through a tunnel")
	}
	return nil
}

// bearer sends a token with each call.
type bearer struct{ token secret.String }

// GetRequestMetadata returns the header that carries the token.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

// RequireTransportSecurity reports false: checkTarget has decided.
func (bearer) RequireTransportSecurity() bool { return false }

// unaryFault gives the errors of unary calls their kinds.
func unaryFault(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return fault.FromGRPC(invoke(ctx, method, req, reply, cc, opts...))
}

// streamFault gives the errors of streams their kinds.
func streamFault(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fault.FromGRPC(err)
	}
	return &kindly{stream}, nil
}

// kindly is a stream whose errors have kinds; io.EOF stays what it is.
type kindly struct{ grpc.ClientStream }

// RecvMsg receives a message.
func (k *kindly) RecvMsg(m any) error { return kindOrEOF(k.ClientStream.RecvMsg(m)) }

// SendMsg sends a message.
func (k *kindly) SendMsg(m any) error { return kindOrEOF(k.ClientStream.SendMsg(m)) }

func kindOrEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fault.FromGRPC(err)
}
