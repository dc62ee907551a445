module github.com/tocsin-dev/tocsin/services/alerter

go 1.26.0

require (
	github.com/tocsin-dev/tocsin/internal v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/proto v0.0.0-00010101000000-000000000000
)

require (
	cel.dev/cel-go v0.33.2
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	github.com/prometheus/common v0.73.1
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	github.com/tocsin-dev/tocsin/rules v0.0.0-00010101000000-000000000000
	go.uber.org/atomic v1.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto v0.0.0-20261026165753-2ffab32bce7e
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.13-0.20261016172727-e9ee2a76ab8e // indirect
)

replace github.com/tocsin-dev/tocsin/proto => ../../proto

replace github.com/tocsin-dev/tocsin/internal => ../../internal

replace github.com/tocsin-dev/tocsin/rules => ../../rules
