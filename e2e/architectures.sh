#!/usr/bin/env bash
# Has two binaries of Hebb, for two architectures, replay the same log, and compares the bytes of what both then know.
#   architectures.sh HEBB OTHER_HEBB [EVENTS]     one for another architecture runs in qemu (Debian: qemu-user-static)
# One writes a log and is killed; both replay it. The other goes on from there and is killed; both replay that.
set -euo pipefail
here=$(realpath "$1") other=$(realpath "$2") events=${3:-3000}
data=$("$(dirname "$0")/data/fetch.sh")
folder=$(mktemp -d)
server=
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$folder"' EXIT

# The header of an ELF file tells the machine, as a number.
machine() { od -An -tu2 -j18 -N2 "$1" | tr -d ' '; }
runner() {
  [[ $(machine "$1") != "$(machine /proc/self/exe)" ]] || return 0
  case $(machine "$1") in
  62) echo qemu-x86_64-static ;;
  183) echo qemu-aarch64-static ;;
  *) echo "no runner for $1" >&2 && return 1 ;;
  esac
}
# The runner's name, or nothing, and then the binary.
hebb() {
  local binary=$1
  shift
  # shellcheck disable=SC2046
  exec $(runner "$binary") "$binary" "$@"
}

# Nothing is checkpointed meanwhile, so that the whole log is replayed; cycles of meta-learning are part of it.
cat >"$folder/cluster.yaml" <<'YAML'
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: architectures}
spec:
  engine: {checkpointInterval: 5m, maxQueueSize: 100000}
  domains:
    - {name: classes, task: Classification, partitions: 2}
    - {name: numbers, task: Regression}
    - {name: shapes, task: Patterns}
    - {name: governed, task: Governed}
    - {name: signals, task: TimeSeriesClassification}
YAML

base=$((20000 + $$ % 10000))
api=http://127.0.0.1:$base
post() { curl -fsS -o /dev/null "$api/$1" "${@:2}"; }
stream() { post "v1/domains/$1/infer-and-adapt" -H 'content-type: application/x-ndjson' --data-binary @-; }

# lines FROM COUNT: of the stream, each with its number in front.
lines() {
  zcat "$data" | tr -d '\r' | awk -F, -v from="$1" -v count="$2" 'NR > from + 1 && NR <= from + count + 1 {print NR - 1 "," $0}'
}

# write BINARY STORE FROM: serves, learns lines of the stream in every domain, and is killed.
write() {
  LOG_LEVEL=warn hebb "$1" start -f "$folder/cluster.yaml" --data-dir "$2" --port "$base" --coordinator-port $((base + 1)) \
    --meta-port $((base + 2)) --worker-port $((base + 3)) --meta-learning-interval-ms 3000 &
  server=$!
  for _ in {1..300}; do
    ! curl -fsS "$api/v1/domains/classes" >/dev/null 2>&1 || break
    sleep 0.2
  done
  # Among real numbers some of those that arithmetic treats with care: both zeros, the smallest, the largest.
  lines "$3" "$events" | awk -F, 'BEGIN {split("0.0 -0.0 1e-40 -1e-45 1e16 -1e16", odd, " ")} {
    printf "{\"id\":\"%s\",\"key\":\"%d\",\"features\":{\"a\":%s,\"b\":%s,\"c\":%s", $1, $1 % 7, $2 / 7, $3, $4 / 3
    printf ",\"odd\":%s,\"zero\":%s", odd[$1 % 6 + 1], odd[$1 % 3 % 2 + 1]
    printf ",\"text\":\"%s\",\"gap\":%s}", ($7 > 0 ? "up" : "down"), ($1 % 3 ? $9 : "null")
    if ($1 % 5) printf ",\"label\":\"%s\"", $11
    print "}" }' | stream classes
  lines "$3" "$events" | awk -F, 'BEGIN {split("0.0 -0.0 1e-40 -1e-45 1e16 -1e16", odd, " ")} {
    printf "{\"id\":\"%s\",\"features\":[%s,%s,%s,%s]", $1, $2, $4, $6 / 9, $1 % 40 ? $5 : odd[$1 / 40 % 6 + 1]
    printf ",\"label\":%.3f}\n", $3 / 7 + $8 * 0.3 }' | stream numbers
  lines "$3" 600 | awk -F, '{
    printf "%s%s", (NR % 24 == 1 ? (NR > 1 ? "]," : "{\"signals\":[") "[" : ","), NR % 9 ? $2 / 11 : (NR % 2 ? "-0.0" : "0.0")
  } END {print "]]}"}' | post v1/domains/shapes/perceive:batch --data-binary @-
  lines "$3" 300 | awk -F, -v api="$api" '{
    printf "url = \"%s/event\"\nfail\nsilent\noutput = /dev/null\n", api
    printf "data = \"{\\\"id\\\":\\\"%s\\\",\\\"vector\\\":[%s,%s,%s],\\\"moral_value\\\":0.%d}\"\nnext\n", $1, $2 / 70, $3 / 9, $4 / 80, $1 % 10
  }' | sed '$d' | curl -K - --fail-early
  # Every sixth waits for its label, which doesn't come; signals of one channel and of several would be of two domains.
  lines "$3" 1200 | awk -F, '{
    part = (NR - 1) % 24 + 1; first[part] = $2 / 11; second[part] = part % 9 ? $4 / 7 : "-0.0"
    if (part < 24) next
    printf "{\"id\":\"%s\",\"signal\":[[", $1
    for (i = 1; i <= 24; i++) printf "%s%s", first[i], i < 24 ? "," : "],["
    for (i = 1; i <= 24; i++) printf "%s%s", second[i], i < 24 ? "," : "]]"
    if (NR / 24 % 6) printf ",\"label\":\"%s\"", $11
    print "}" }' | stream signals
  # A cycle of meta-learning or two.
  sleep 7
  kill -9 "$server"
  wait "$server" 2>/dev/null || true
}

# digests BINARY STORE: of each partition's state, after a replay of its log.
digests() {
  local copy
  copy=$(mktemp -d -p "$folder")
  cp -r "$2" "$copy/store"
  (hebb "$1" backup --log-level warn -f "$folder/cluster.yaml" --data-dir "$copy/store" --to "$copy/backup") >/dev/null
  # Without the line that tells the file's name and time.
  (hebb "$1" backup verify "$copy/backup") | tail -n +3
}

compare() {
  digests "$here" "$1" >"$folder/here"
  digests "$other" "$1" >"$folder/other"
  cat "$folder/here"
  diff "$folder/here" "$folder/other" || { echo "the two replays differ" >&2 && return 1; }
}

echo "==> written by $here"
write "$here" "$folder/store" 0
compare "$folder/store"
echo "==> continued by $other"
write "$other" "$folder/store" "$events"
compare "$folder/store"
echo "every replay ended in the same bytes"
