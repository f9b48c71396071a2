#!/bin/bash
# One image with `buf curl`, which speaks gRPC, gRPC-Web and Connect and needs no stubs either. Prints what
# sluiceway-client.sh prints; for streams of many jobs, deadlines and cancelling see there.
#   buf-client.sh [--address HOST:PORT] [--ca FILE] [--timeout SECONDS] IMAGE
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
address=localhost:50051 scheme=http
options=(--protocol grpc --http2-prior-knowledge --emit-defaults -H 'sluiceway-priority: normal')
while [[ ${1:-} == --* ]]; do
	case $1 in
	--address) address=$2 ;;
	--ca) scheme=https options+=(--cacert "$2") ;;
	--timeout) options+=(--timeout "$2s") ;;
	*) echo "no such option: $1" >&2 && exit 2 ;;
	esac
	shift 2
done
image=${1:?which image?}
[[ -r $image ]] || { echo "$image: cannot be read" >&2; exit 1; }
# buf makes the message, so this is what is surely enough; the server makes room for it and reads at once.
options+=(-H "sluiceway-request-bytes: $(($(stat -Lc %s "$image") + $(basename "$image" | wc -c) + 64))")

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
if [[ -n ${SLUICEWAY_TOKEN:-} ]]; then
	[[ $scheme == https ]] || { echo 'a token is only sent over TLS: give --ca' >&2; exit 2; }
	# From a file, so that it is in no list of processes.
	(umask 077 && printf 'authorization: Bearer %s\n' "$SLUICEWAY_TOKEN" >"$files/headers")
	options+=(-H "@$files/headers" --reflect-header "@$files/headers")
fi

# An image goes into JSON as base64.
if ! {
	printf '{"sources": [{"source_id": %s, "image": "' "$(basename "$image" | jq -R .)"
	base64 -w0 "$image"
	printf '"}]}'
} | buf curl "${options[@]}" -d @- "$scheme://$address/sluiceway.pipeline.v1.PipelineService/Process" 2>"$files/error" |
	jq --unbuffered -r -f "$here/event.jq"; then
	jq -e . "$files/error" >/dev/null 2>&1 || { cat "$files/error" >&2; exit 1; }
	# buf leaves the details packed. google/rpc/error_details.proto is in github.com/googleapis/googleapis and in the
	# Python package googleapis-common-protos; GOOGLEAPIS says where.
	detail() { # NAME: prints it as JSON; {} if the error has none
		local value
		value=$(jq -r --arg name "google.rpc.$1" '[.details[]? | select(.type == $name)][0].value // ""' "$files/error")
		# Base64 without the padding that base64(1) wants.
		while ((${#value} % 4)); do value+='='; done
		base64 -d <<<"$value" >"$files/$1.binpb"
		buf convert "$GOOGLEAPIS/google/rpc/error_details.proto" --type "google.rpc.$1" \
			--from "$files/$1.binpb" --to -#format=json
	}
	jq -n --slurpfile error "$files/error" --slurpfile info <(detail ErrorInfo) --slurpfile retry <(detail RetryInfo) '
		{code: $error[0].code | ascii_upcase, message: $error[0].message, details: [
			($info[0] + {"@type": "/google.rpc.ErrorInfo"}),
			{"@type": "/google.rpc.RetryInfo", retry_delay: ($retry[0].retryDelay // "0s")}]}' | jq -r -f "$here/error.jq"
	exit 1
fi
