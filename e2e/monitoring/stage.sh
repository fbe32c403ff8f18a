# shellcheck shell=bash
# Something to be monitored: `hebb start` with a stream, and the operator on an API server of its own, both on the loopback
# address. To be sourced; `stage HEBB` starts them and what was started ends with the script.
#   GATEWAY COORDINATOR WORKER OPERATOR     host:port of each
#   WORK                                    a folder for the script's own files

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STARTED=()

fail() {
  echo "monitoring: $*" >&2
  exit 1
}

leave_stage() {
  local process
  for process in "${STARTED[@]}"; do
    kill "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  "$ROOT/e2e/cluster/control-plane.sh" down "$WORK/control-plane" >/dev/null 2>&1 || true
  rm -rf "$WORK"
}

# within SECONDS WHAT COMMAND…
within() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "not in time: $what"
    sleep 0.3
  done
}

answers() { curl --silent --fail --max-time 2 "http://$1" >/dev/null; }

# Classes that one number tells apart, ids and labels with them, a number, and a wave, for as long as the script runs; and vectors for
# a governed memory.
stream() {
  local number=0 last lines
  while :; do
    curl --silent --max-time 10 --output /dev/null --data "{\"id\":\"m-$number\",\"features\":[$((number % 7))],\"label\":$((number % 7 * 2)).5}" \
      "http://$GATEWAY/v1/domains/load/infer-and-adapt" || true
    curl --silent --max-time 10 --output /dev/null --data '{"signal":[0,1,4,1,0,1,4,1,0,1,4,1,0]}' "http://$GATEWAY/v1/domains/waves/perceive" || true
    lines=''
    for ((last = number + 40; number < last; number++)); do
      lines+="{\"id\":\"m-$number\",\"features\":[$((number * 7 % 10)),$((number % 3))],\"label\":\"$((number * 7 % 10 > 4))\"}"$'\n'
    done
    curl --silent --max-time 10 --output /dev/null --header 'content-type: application/x-ndjson' --data-binary @- \
      "http://$GATEWAY/v1/domains/sensors/infer-and-adapt" <<<"$lines" || true
    curl --silent --max-time 10 --output /dev/null "http://$GATEWAY/event" \
      --data "{\"id\":\"v-$number\",\"vector\":[$number,1],\"moral_value\":0.$((number / 40 % 10))}" || true
    sleep 0.2
  done
}

# A review a second, as the API server asks the operator's webhook for one.
reviews() {
  local asked='{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"default",
    "kind":{"group":"hebb.dev","kind":"LearningCluster"},"object":{"metadata":{"name":"demo"},"spec":{}}}}'
  while :; do
    curl --silent --max-time 5 --output /dev/null --cacert "$WORK/webhook/tls.crt" --data-binary "$asked" "https://$1/validate" || true
    sleep 1
  done
}

stage() {
  local hebb=$1 base=$((20000 + $$ % 9000)) kubectl
  WORK=$(mktemp -d)
  trap leave_stage EXIT
  GATEWAY=127.0.0.1:$base COORDINATOR=127.0.0.1:$((base + 1)) WORKER=127.0.0.1:$((base + 2)) OPERATOR=127.0.0.1:$((base + 3))

  cat >"$WORK/cluster.yaml" <<'YAML'
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: demo, namespace: default, labels: {app: demo}}
spec:
  domains: [{name: sensors, task: Classification, partitions: 2}, {name: load, task: Regression}, {name: waves, task: Patterns}]
  metaLearning: {interval: 2s}
YAML
  LOG_LEVEL=warn "$hebb" start -f "$WORK/cluster.yaml" --data-dir "$WORK/data" --port "$base" --coordinator-port $((base + 1)) \
    --worker-port $((base + 2)) --meta-port $((base + 4)) &
  STARTED+=($!)
  within 20 "hebb start" answers "$GATEWAY/health/readiness"
  stream &
  STARTED+=($!)

  # Nothing runs pods here, so no gateway answers and the alert of this policy fires.
  cat >"$WORK/policy.yaml" <<'YAML'
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: demo, namespace: default}
spec:
  targetRef: {name: demo}
  rules:
    - {name: down, expr: {indicator: up, aggregation: Max, window: 15s, operator: LessThan, threshold: 1}, onNoData: Alert}
  routes: [{receiver: log, groupWait: 0s}]
  receivers: [{name: log, log: {}}]
YAML
  KUBECONFIG=$("$ROOT/e2e/cluster/control-plane.sh" up "$WORK/control-plane")
  export KUBECONFIG
  kubectl=$("$ROOT/e2e/cluster/binaries.sh" kubectl)/kubectl
  "$kubectl" apply --server-side -f "$ROOT/crds" >/dev/null
  # kubectl fails where there are no conditions yet.
  within 30 "the definitions" "$kubectl" wait --for=condition=Established --timeout=5s crd/learningclusters.hebb.dev crd/alertpolicies.hebb.dev
  mkdir "$WORK/webhook"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=webhook -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$WORK/webhook/tls.key" -out "$WORK/webhook/tls.crt" 2>/dev/null
  LOG_LEVEL=error "$hebb" operator --image localhost/hebb/hebb:dev --listen "$OPERATOR" \
    --webhook-listen "127.0.0.1:$((base + 5))" --webhook-certificates "$WORK/webhook" &
  STARTED+=($!)
  reviews "127.0.0.1:$((base + 5))" &
  STARTED+=($!)
  "$kubectl" apply --server-side -f "$WORK/cluster.yaml" -f "$WORK/policy.yaml" >/dev/null
  within 60 "a delivered alert" delivered
}

delivered() { curl --silent "http://$OPERATOR/metrics" | grep -q '^hebb_alert_deliveries_total'; }
