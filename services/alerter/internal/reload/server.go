package reload

import (
	"context"

	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// Server serves the RuleService.
type Server struct {
	rulev1.UnimplementedRuleServiceServer
	// Reloader does the work.
	Reloader *Reloader
}

// Reload reads the rule files anew.
func (s *Server) Reload(ctx context.Context, _ *rulev1.ReloadRequest) (*rulev1.ReloadResponse, error) {
	result, err := s.Reloader.Reload(ctx, "gRPC")
	if err != nil {
		return nil, err
	}
	return &rulev1.ReloadResponse{
		RuleSetHash: result.Program.Hash(), Changed: result.Changed, Rules: int32(len(result.Program.Set().Rules())),
	}, nil
}
