# What grpcurl (or buf-client.sh) says of a failed call in; the code, Sluiceway's stable reason, when to try again, and the details out.
["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
 "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
 "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"] as $names
| def detail($name): [.details // [] | .[] | select(.["@type"] | endswith("/google.rpc." + $name))][0] // {};
  detail("ErrorInfo") as $info | detail("RetryInfo") as $retry
| ($retry.retry_delay // $retry.retryDelay // "0s" | rtrimstr("s") | tonumber * 1000 | round) as $retry_ms
| (["error", (if (.code | type) == "number" then $names[.code] else .code end), $info.reason // "-", $retry_ms, .message] | map(tostring) | join("\t")),
  ($info.metadata // {} | to_entries[] | ["error_metadata", .key, .value] | join("\t"))
