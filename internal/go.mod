module github.com/tocsin-dev/tocsin/internal

go 1.26.0

require github.com/tocsin-dev/tocsin/proto v0.0.0-00010101000000-000000000000

replace github.com/tocsin-dev/tocsin/proto => ../proto
