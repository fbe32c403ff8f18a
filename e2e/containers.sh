#!/usr/bin/env bash
# The image by a container engine: built from the Dockerfile, then run by compose.yaml. Half a stream is learned, the worker that
# learned it is killed, the rest is learned, and after a restart of everything each event counts once.
#   containers.sh [IMAGE]     builds the image, unless one is named. HEBB_REDIS_IMAGE names another Redis than Docker Hub's
set -euo pipefail
cd "$(dirname "$0")/.."
export HEBB_IMAGE=${1:-hebb:local}
compose() { docker compose --project-name hebb-test --progress quiet "$@"; }
trap 'compose down --volumes --timeout 5' EXIT
api=http://127.0.0.1:8080 status=http://127.0.0.1:8000/api/v1/status
ask() { curl -fsS --max-time 30 "$@"; }

until_says() { # WHAT COMMAND…
  local what=$1
  shift
  for _ in {1..150}; do
    ! "$@" 2>/dev/null | grep -q "$what" || return 0
    sleep 0.4
  done
  echo "gave up: '$*' never said $what" >&2
  return 1
}
up() {
  compose up --detach --no-build --scale worker=2
  until_says '"leader":"coordinator' ask "$status"
  until_says 200 ask -o /dev/null -w '%{http_code}' "$api/health/readiness"
}
# learn FROM TO: sends them again until each is answered by a prediction; an id that was learned is not learned again.
learn() {
  local answers
  for _ in {1..20}; do
    answers=$(seq "$1" "$2" |
      awk '{printf "{\"id\":\"%d\",\"features\":[%d,%d],\"label\":\"%s\"}\n", $1, $1 % 7, $1 % 5, ($1 % 7 > 3 ? "up" : "down")}' |
      ask "$api/v1/domains/demo/infer-and-adapt" -H 'content-type: application/x-ndjson' --data-binary @-) || continue
    grep -q '"error"' <<<"$answers" || return 0
    grep -m1 '"error"' <<<"$answers" >&2
    sleep 1
  done
  return 1
}
learned() { until_says "\"events\":$1," ask "$api/v1/domains/demo"; }

[[ -n ${1:-} ]] || docker build --tag "$HEBB_IMAGE" .
docker run --rm --read-only --cap-drop ALL "$HEBB_IMAGE" --version
up
learn 1 1000
learned 1000
# A worker is called after its container.
until_says '"owner":"worker-' ask "$status"
owner=$(ask "$status" | grep -o '"owner":"worker-[0-9a-f]*' | sed 's/.*-//')
docker kill "$owner" >/dev/null
learn 1001 2000
learned 2000
compose down --timeout 30
up
learned 2000
echo "each of 2000 events counts once, after the worker that owned them was killed and everything restarted"
