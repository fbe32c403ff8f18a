# shellcheck shell=bash disable=SC2034
# What every script of this folder shares: places, versions, and how to speak. To be sourced.

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HEBB_CACHE=${HEBB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hebb}
STATE=${HEBB_STATE:-$HEBB_CACHE/state}

KUBERNETES_VERSION=1.36.3

# Progress goes to stderr, so that a script's stdout stays usable by its caller.
say() { printf '%s\n' "$*" >&2; }
step() { printf '==> %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# engine_answers [podman]: a client alone, without a container engine behind it, is of no use.
engine_answers() { have "${1:-docker}" && timeout 10 "${1:-docker}" info >/dev/null 2>&1; }

# A docker client without an engine would have kind believe in Docker.
run_kind() {
  engine_answers || export KIND_EXPERIMENTAL_PROVIDER=podman
  kind "$@"
}

# until_true SECONDS WHAT COMMAND…: waits for the command to succeed; fails, naming WHAT, when time is up.
until_true() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)); then
      say "gave up after ${seconds}s: $what"
      return 1
    fi
    sleep 0.2
  done
}

# The key changes with every source of the binaries, so an old cache is never taken for a new one.
binaries_key() {
  {
    export LC_ALL=C
    go version
    cd "$CLUSTER_DIR" && cat ./*/go.mod ./*/go.sum coredns/main.go
  } | sha256sum | cut -c1-16
}

bin_dir() { printf '%s\n' "$HEBB_CACHE/cluster/$(binaries_key)/bin"; }
