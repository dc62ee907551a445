module github.com/tocsin-dev/tocsin/services/collector

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/tocsin-dev/tocsin/internal v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/proto v0.0.0-00010101000000-000000000000
)

replace github.com/tocsin-dev/tocsin/proto => ../../proto

replace github.com/tocsin-dev/tocsin/internal => ../../internal
