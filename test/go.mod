module github.com/tocsin-dev/tocsin/test

go 1.26.0

replace github.com/tocsin-dev/tocsin/proto => ../proto

replace github.com/tocsin-dev/tocsin/internal => ../internal

replace github.com/tocsin-dev/tocsin/services/collector => ../services/collector

replace github.com/tocsin-dev/tocsin/services/alerter => ../services/alerter

replace github.com/tocsin-dev/tocsin/services/notifier => ../services/notifier

replace github.com/tocsin-dev/tocsin/cmd/tocsin => ../cmd/tocsin
