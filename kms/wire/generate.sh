#!/bin/sh
# generate.sh [DIR] makes the Go code of the .proto files, in place or, for the
# test that compares, below DIR.
set -eu

cd "$(dirname "$0")/../.."
out=${1:-.}
protoc -I . \
	--plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" \
	--plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" \
	--go_out="$out" --go_opt=paths=source_relative \
	--go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
	kms/wire/sidero.proto kms/wire/admin.proto
go tool gofumpt -w "$out"/kms/wire/*.pb.go
