package rpc_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

func TestCallsNeedTheToken(t *testing.T) {
	f := start(t, &notifier{
		watch: func(_ context.Context, send func(string) error) error { return send("1") },
	}, rpc.ServerOptions{Token: "hunter2"})
	for name, test := range map[string]struct {
		token secret.String
		in    bool
	}{
		"the token":           {"hunter2", true},
		"no token":            {"", false},
		"another token":       {"hunter3", false},
		"half the token":      {"hunter", false},
		"more than the token": {"hunter2 2", false},
	} {
		conn := f.dial(t, rpc.DialOptions{Token: test.token})
		for how, err := range map[string]error{"unary": watermark(t, conn), "stream": watch(t, conn), "reflection": listV1(t, conn, nil)} {
			if test.in && err != nil || !test.in && !errors.Is(err, fault.Unauthenticated) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("%s, %s: the answer shows a token: %v", name, how, err)
			}
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("%s: a probe without a token: %v", name, err)
		}
	}
	if text := f.log.String(); strings.Contains(text, "hunter") {
		t.Errorf("the log shows a token:\n%s", text)
	}
}

func TestACallOfWhatDoesNotExistIsToldWithAReason(t *testing.T) {
	f := start(t, &notifier{}, rpc.ServerOptions{Token: "hunter2"})
	for token, want := range map[secret.String]fault.Kind{"hunter2": fault.MethodNotAllowed, "": fault.Unauthenticated} {
		conn := f.dial(t, rpc.DialOptions{Token: token})
		for _, method := range []string{"/made.up.Service/Call", "/" + serviceName + "/MadeUp"} {
			err := conn.Invoke(t.Context(), method, &notifyv1.WatermarkRequest{}, &notifyv1.WatermarkResponse{})
			if !errors.Is(err, want) || status.Code(err) != want.Code() {
				t.Errorf("%s with token %t: %v, want %v", method, token.Set(), err, want)
			}
		}
	}
	if got := count(t, f.reg, "tocsin_grpc_requests_total", codes.Unimplemented.String(), "unknown"); got != 2 {
		t.Errorf("%v calls are counted as unknown, want 2: callers must not make up labels", got)
	}
}

func TestTheTokenIsReadAsHTTPDoes(t *testing.T) {
	f := start(t, &notifier{}, rpc.ServerOptions{Token: "hunter2"})
	client := notifyv1.NewNotifierServiceClient(f.dial(t, rpc.DialOptions{}))
	for name, test := range map[string]struct {
		headers []string
		in      bool
	}{
		"any case of the scheme":         {[]string{"bEARER hunter2"}, true},
		"another scheme":                 {[]string{"Basic hunter2"}, false},
		"the token without its scheme":   {[]string{"hunter2"}, false},
		"two headers, one of them right": {[]string{"Bearer hunter2", "Bearer x"}, false},
	} {
		md := metadata.MD{"authorization": test.headers}
		_, err := client.Watermark(metadata.NewOutgoingContext(t.Context(), md), &notifyv1.WatermarkRequest{})
		if test.in != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

//nolint:staticcheck // v1alpha is deprecated, and what older grpcurls speak
func TestReflectionSpeaksBothVersions(t *testing.T) {
	f := start(t, &notifier{}, rpc.ServerOptions{})
	conn := f.dial(t, rpc.DialOptions{})
	var v1, v1alpha []string
	if err := listV1(t, conn, &v1); err != nil {
		t.Fatal(err)
	}
	stream, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1alpha.ServerReflectionRequest{
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		v1alpha = append(v1alpha, s.GetName())
	}
	for _, want := range []string{serviceName, "grpc.health.v1.Health"} {
		if !slices.Contains(v1, want) || !slices.Contains(v1alpha, want) {
			t.Errorf("%s is not listed by both: %v, %v", want, v1, v1alpha)
		}
	}
}

// listV1 asks reflection for the services and stores their names in names.
func listV1(t *testing.T, conn *grpc.ClientConn, names *[]string) error {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		return err
	}
	// An error of Send is io.EOF; Recv says why.
	_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	answer, err := stream.Recv()
	if err != nil || names == nil {
		return err
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		*names = append(*names, s.GetName())
	}
	return nil
}

func TestHealthFollowsTheServices(t *testing.T) {
	f := start(t, &notifier{}, rpc.ServerOptions{})
	client := healthpb.NewHealthClient(f.dial(t, rpc.DialOptions{}))
	status := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		answer, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStatus()
	}
	if got := status(serviceName); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("a registered service is %v", got)
	}
	f.server.SetServing(serviceName, false)
	f.server.SetServing("", false)
	if a, b := status(serviceName), status(""); a != healthpb.HealthCheckResponse_NOT_SERVING || b != a {
		t.Errorf("after it said so it is %v, the server %v", a, b)
	}
	f.server.SetServing(serviceName, true)
	if got := status(serviceName); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("after it recovered it is %v", got)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a service that does not exist: %v", err)
	}
}
