module github.com/tocsin-dev/tocsin/cmd/tocsin

go 1.26.0

require (
	github.com/tocsin-dev/tocsin/internal v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/proto v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/alerter v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/collector v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/notifier v0.0.0-00010101000000-000000000000
)

replace github.com/tocsin-dev/tocsin/proto => ../../proto

replace github.com/tocsin-dev/tocsin/internal => ../../internal

replace github.com/tocsin-dev/tocsin/services/collector => ../../services/collector

replace github.com/tocsin-dev/tocsin/services/alerter => ../../services/alerter

replace github.com/tocsin-dev/tocsin/services/notifier => ../../services/notifier
