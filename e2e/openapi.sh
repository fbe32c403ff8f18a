#!/usr/bin/env bash
# Asks a live `hebb start` all that its OpenAPI document allows and much that it forbids (schemathesis): no answer may be a
# server error or other than documented.
#   openapi.sh HEBB_BINARY FOLDER [ARGUMENT_OF_SCHEMATHESIS…]
set -euo pipefail
hebb=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
shift 2
version=4.32.5
tool=$folder/schemathesis-$version
if [[ ! -x $tool/bin/schemathesis ]]; then
  python3 -m venv "$tool"
  "$tool/bin/pip" install --quiet "schemathesis==$version"
fi

data=$(mktemp -d)
base=$((20000 + $$ % 10000))
url=http://127.0.0.1:$base
cat >"$data/cluster.yaml" <<'YAML'
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: openapi}
spec:
  domains:
    - {name: d, task: Classification, partitions: 2}
    - {name: numbers, task: Regression}
    - {name: shapes, task: Patterns, partitions: 2}
    - {name: gestures, task: TimeSeriesClassification}
YAML
LOG_LEVEL=warn "$hebb" start -f "$data/cluster.yaml" --data-dir "$data/hebb" --port "$base" \
  --coordinator-port $((base + 1)) --worker-port $((base + 2)) &
server=$!
cleanup() {
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$data"
}
trap cleanup EXIT

for _ in {1..100}; do
  curl -fsS "$url/v1/domains/shapes" >/dev/null 2>&1 && break
  sleep 0.2
done
# Something to be found under the names that the document gives as examples.
curl -fsS "$url/v1/domains/d/infer-and-adapt" -d '{"id":"e1","features":[1,2.5],"label":"up"}' >/dev/null
curl -fsS "$url/v1/domains/gestures/infer-and-adapt" -d '{"id":"g1","signal":[0,1,4,1,0],"label":"up"}' >/dev/null
curl -fsS "$url/v1/domains/shapes/perceive" -d '{"id":"s1","signal":[0,1,4,1,0]}' >/dev/null

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,unsupported_method
cd "$data"
"$tool/bin/schemathesis" run "$url/openapi.json" --checks "$checks" --max-examples 50 --seed 1 --no-color "$@"
