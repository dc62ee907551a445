module github.com/tocsin-dev/tocsin/cmd/tocsin

go 1.26.0

require (
	github.com/tocsin-dev/tocsin/internal v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/proto v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/alerter v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/collector v0.0.0-00010101000000-000000000000
	github.com/tocsin-dev/tocsin/services/notifier v0.0.0-00010101000000-000000000000
)

require github.com/standard-webhooks/standard-webhooks/libraries v0.0.1 // indirect

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/alicebob/miniredis/v2 v2.40.0 // indirect
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nats-server/v2 v2.15.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/tocsin-dev/tocsin/rules v0.0.0-00010101000000-000000000000
	github.com/yuin/gopher-lua v1.1.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/tocsin-dev/tocsin/proto => ../../proto

replace github.com/tocsin-dev/tocsin/internal => ../../internal

replace github.com/tocsin-dev/tocsin/services/collector => ../../services/collector

replace github.com/tocsin-dev/tocsin/services/alerter => ../../services/alerter

replace github.com/tocsin-dev/tocsin/services/notifier => ../../services/notifier

replace github.com/tocsin-dev/tocsin/rules => ../../rules
