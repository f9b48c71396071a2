#!/bin/bash
# Reads the text in images through a Sluiceway server and prints each event as it comes. Needs grpcurl and jq, and no
# stubs: the server describes itself by reflection.
set -euo pipefail

usage() {
	cat >&2 <<-'END'
	usage: sluiceway-client [options] IMAGE...
	  --address HOST:PORT  the server (localhost:50051)
	  --ca FILE            use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent
	  --cert FILE --key FILE  the client's own certificate (mutual TLS)
	  --timeout SECONDS    deadline of the call, or of each job with --bulk
	  --cancel-after N     cancel the call after N events
	  --bulk N             one job an image over one stream, at most N jobs unfinished
	END
	exit 2
}

here=$(dirname "$(readlink -f "$0")")
service=sluiceway.pipeline.v1.PipelineService
address=localhost:50051 ca='' timeout='' cancel_after=0 bulk=0
# gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
options=(-format-error -emit-defaults -max-msg-sz $((64 * 1024 * 1024)))
images=()
while (($#)); do
	case $1 in
	--address) address=$2 ;;
	--ca) ca=$2 options+=(-cacert "$2") ;;
	--cert) options+=(-cert "$2") ;;
	--key) options+=(-key "$2") ;;
	--timeout) timeout=$2 ;;
	--cancel-after) cancel_after=$2 ;;
	--bulk) bulk=$2 ;;
	-*) usage ;;
	*) images+=("$1") && shift && continue ;;
	esac
	shift 2 || usage
done
((${#images[@]})) || usage
for image in "${images[@]}"; do
	[[ -r $image ]] || { echo "$image: cannot be read" >&2; exit 1; }
done
if [[ -z $ca ]]; then
	[[ -z ${SLUICEWAY_TOKEN:-} ]] || { echo 'a token is only sent over TLS: give --ca' >&2; exit 2; }
	options+=(-plaintext)
elif [[ -n ${SLUICEWAY_TOKEN:-} ]]; then
	# grpcurl fills the variable in, so that the token is in no list of processes.
	# shellcheck disable=SC2016
	options+=(-expand-headers -H 'authorization: Bearer ${SLUICEWAY_TOKEN}')
fi

# An image goes into JSON as base64.
source_of() {
	printf '{"source_id": %s, "image": "' "$(basename "$1" | jq -R .)"
	base64 -w0 "$1"
	printf '"}'
}

job() { # ID IMAGE...; the server makes an id up where it is empty
	printf '{"job_id": "%s", "options": {"priority": "PRIORITY_%s"}, ' "$1" "${priority^^}"
	# The deadline of a stream would end it with all its jobs.
	((bulk == 0)) || [[ -z $timeout ]] || printf '"timeout": "%ss", ' "$timeout"
	printf '"sources": ['
	shift
	local separator=''
	for image; do
		printf '%s' "$separator"
		source_of "$image"
		separator=,
	done
	printf ']}\n'
}

# What the server needs to know before it reads. grpcurl makes the message, so the size is what is surely enough: the
# files, their names, and what stands around them. Of a stream, whose largest job counts, none is told.
if ((bulk)); then
	priority=bulk
else
	priority=normal size_bytes=32
	for image in "${images[@]}"; do
		name=$(basename "$image" | wc -c)
		size_bytes=$((size_bytes + $(stat -Lc %s "$image") + name + 32))
	done
	options+=(-rpc-header "sluiceway-request-bytes: $size_bytes")
	[[ -z $timeout ]] || options+=(-max-time "$timeout")
fi
options+=(-rpc-header "sluiceway-priority: $priority")

# The next job of the stream, or its end.
sent=0 finished=0
send_more() {
	while ((sent < ${#images[@]} && sent - finished < bulk)); do
		printf '{"job": %s}\n' "$(job "job-$sent" "${images[sent]}")" 2>/dev/null >&"$requests" || break
		sent=$((sent + 1))
	done
	if ((sent == ${#images[@]})) && [[ -n $requests ]]; then
		exec {requests}>&-
		requests=''
	fi
}

# When grpcurl is gone, what it said last tells why; writing to it is no news.
trap '' PIPE
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
method=$service/Process
((bulk == 0)) || method=${method}Stream
coproc CALL { exec grpcurl "${options[@]}" -d @ "$address" "$method" 2>"$errors"; }
pid=$CALL_PID requests=${CALL[1]}
exec {events}< <(jq --unbuffered -c . <&"${CALL[0]}")
if ((bulk)); then
	send_more
else
	job '' "${images[@]}" 2>/dev/null >&"$requests" || true
	exec {requests}>&-
	requests=''
fi

failed=0 count=0
while read -r event <&"$events"; do
	lines=$(jq -r -f "$here/event.jq" <<<"$event")
	[[ -z $lines ]] || printf '%s\n' "$lines"
	case $lines in
	failed* | refused*) failed=1 ;;
	esac
	case $lines in
	job_done* | refused*) finished=$((finished + 1)) && { ((bulk == 0)) || send_more; } ;;
	esac
	if ((++count == cancel_after)); then
		# When grpcurl ends, so does the call on the server.
		kill "$pid"
		printf 'error\tCANCELLED\t-\t0\tcancelled here\n'
		exit 1
	fi
done
wait "$pid" || {
	# What stops grpcurl from asking for the description comes as text, without details.
	jq -r -f "$here/error.jq" "$errors" 2>/dev/null ||
		sed -nE 's/.*code = ([A-Za-z]+) desc = (.*)/error\t\1\t-\t0\t\2/p; t; w /dev/stderr' "$errors"
	exit 1
}
exit $failed
