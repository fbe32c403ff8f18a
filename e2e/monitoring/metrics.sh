#!/usr/bin/env bash
# docs/metrics.md and what the processes expose are the same: names, types, labels, and which process has them.
#   metrics.sh HEBB_BINARY
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/stage.sh"
stage "$(realpath "$1")"

# exposed PROCESS HOST:PORT: lines of `process name type labels`.
exposed() {
  curl --silent --fail "http://$2/metrics" | awk -v of="$1" '
    $1 == "#" && $2 == "TYPE" { type[$3] = $4 }
    $1 !~ /^#/ {
      name = $1; sub(/\{.*/, "", name)
      base = name; sub(/_(bucket|sum|count)$/, "", base)
      if (type[base] == "histogram") name = base
      labels = ""
      if (match($1, /\{.*\}/)) {
        count = split(substr($1, RSTART + 1, RLENGTH - 2), pairs, ",")
        for (at = 1; at <= count; at++) {
          sub(/=.*/, "", pairs[at])
          if (pairs[at] != "le") labels = labels (labels == "" ? "" : ",") pairs[at]
        }
      }
      print of, name, type[name], labels
    }'
}

documented() {
  awk -F' *\\| *' '
    $2 ~ /^`[a-z_]+`$/ {
      gsub(/[` ]/, "", $2); gsub(/[` ]/, "", $4); gsub(/ |leading/, "", $6)
      count = split($6, processes, ",")
      for (at = 1; at <= count; at++) print processes[at], $2, $3, $4
    }' "$ROOT/docs/metrics.md"
}

everything() {
  { exposed gateway "$GATEWAY"; exposed coordinator "$COORDINATOR"; exposed worker "$WORKER"; exposed operator "$OPERATOR"; } | sort -u
}

complete() { everything | diff -q - <(documented | sort -u); }
if ! (within 30 "the table and the scrape agree" complete) 2>/dev/null; then
  diff --label exposed --label docs/metrics.md -u <(everything) <(documented | sort -u) >&2 || true
  fail "docs/metrics.md is not what the processes expose"
fi
echo "monitoring: docs/metrics.md agrees with $(everything | wc -l) metrics of four processes"
