package foreign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// remote calls a gRPC server as grpcurl does: all that it knows of the API it
// learns from the server.
type remote struct {
	conn    *grpc.ClientConn
	token   string
	methods map[string]protoreflect.MethodDescriptor // by service/method
}

// reflectOn connects and asks the server for its schema.
func reflectOn(t *testing.T, address, token string) *remote {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &remote{conn: conn, token: token, methods: map[string]protoreflect.MethodDescriptor{}}
	if err := r.learn(t.Context()); err != nil {
		t.Fatalf("ask %s for its schema: %v", address, err)
	}
	return r
}

func (r *remote) authorised(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.token)
	}
	return context.WithTimeout(ctx, process.Patience)
}

func (r *remote) learn(ctx context.Context) error {
	ctx, cancel := r.authorised(ctx)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	ask := func(q *reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error) {
		if err := stream.Send(q); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		a, err := stream.Recv()
		if err == nil && a.GetErrorResponse() != nil {
			err = errors.New(a.GetErrorResponse().GetErrorMessage())
		}
		return a, err
	}
	services, err := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		return err
	}
	files := map[string]*descriptorpb.FileDescriptorProto{}
	for _, s := range services.GetListServicesResponse().GetService() {
		a, err := ask(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.GetName()},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.GetName(), err)
		}
		for _, raw := range a.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(raw, file); err != nil {
				return err
			}
			files[file.GetName()] = file
		}
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range files {
		set.File = append(set.File, file)
	}
	registry, err := protodesc.NewFiles(set)
	if err != nil {
		return err
	}
	registry.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				r.methods[string(service.FullName())+"/"+string(m.Name())] = m
			}
		}
		return true
	})
	return nil
}

// call makes a unary call with a request in JSON and returns the answer, which
// shows what has its default too.
func (r *remote) call(ctx context.Context, method, request string) (map[string]any, error) {
	m := r.methods[method]
	if m == nil {
		return nil, fmt.Errorf("the server tells of no %s", method)
	}
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		return nil, err
	}
	ctx, cancel := r.authorised(ctx)
	defer cancel()
	if err := r.conn.Invoke(ctx, "/"+method, in, out); err != nil {
		return nil, err
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(out)
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	return answer, json.Unmarshal(text, &answer)
}

const queryService = "tocsin.query.v1.QueryService/"

// targets lists all targets of a kind, by id, page by page.
func (r *remote) targets(t *testing.T, kind string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for page := ""; ; {
		a, err := r.call(t.Context(), queryService+"ListTargets", fmt.Sprintf(`{"kind":%q,"pageSize":70,"pageToken":%q}`, kind, page))
		if err != nil {
			t.Fatalf("list targets: %v", err)
		}
		for _, one := range list(a, "targets") {
			id := text(one, "target", "id")
			if all[id] != nil {
				t.Errorf("target %q is on two pages", id)
			}
			all[id] = one
		}
		if page = text(a, "nextPageToken"); page == "" {
			return all
		}
	}
}

// alerts lists the alerts of a name that fire.
func (r *remote) alerts(t *testing.T, name string) []map[string]any {
	t.Helper()
	a, err := r.call(t.Context(), queryService+"ListAlerts",
		fmt.Sprintf(`{"states":["ALERT_STATE_FIRING"],"matchers":[%q]}`, "alertname="+name))
	if err != nil {
		t.Fatalf("list alerts: %v", err)
	}
	return list(a, "alerts")
}

// at returns what lies at a path of members, nil if nothing does.
func at(v any, path ...string) any {
	for _, name := range path {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

// text returns the text at a path, "" if there is none.
func text(v any, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

// list returns the objects in the list at a path.
func list(v any, path ...string) []map[string]any {
	values, _ := at(v, path...).([]any)
	objects := make([]map[string]any, 0, len(values))
	for _, one := range values {
		object, _ := one.(map[string]any)
		objects = append(objects, object)
	}
	return objects
}

// field returns the latest value of a target's field, "" if it has none.
func field(target any, name string) string {
	for _, v := range list(target, "values") {
		if v["name"] == name {
			return text(v, "value")
		}
	}
	return ""
}
