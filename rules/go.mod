module github.com/tocsin-dev/tocsin/rules

go 1.26.0
