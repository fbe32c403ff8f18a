#!/usr/bin/env bash
# Builds Prometheus and promtool from their module, once, into the cache; prints the folder that holds them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../cluster/lib.sh"

module=$here/prometheus
bin=$HEBB_CACHE/monitoring/$({ go version; cat "$module/go.mod" "$module/go.sum"; } | sha256sum | cut -c1-16)
for program in prometheus promtool; do
  [[ ! -x $bin/$program ]] || continue
  step "building $program (some minutes on two cores the first time, then cached)"
  mkdir -p "$bin"
  (cd "$module" &&
    CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' nice go build -trimpath -ldflags '-s -w' \
      -o "$bin/.$program.$$" "github.com/prometheus/prometheus/cmd/$program")
  mv "$bin/.$program.$$" "$bin/$program"
done
printf '%s\n' "$bin"
