#!/usr/bin/env bash
# The rules and dashboards of integrations/ by a real Prometheus, which scrapes a real `hebb start` and a real operator: the
# rules are valid and fire on what they are for, each alert has its runbook page, and every panel shows something.
#   test.sh HEBB_BINARY
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/stage.sh"
bin=$("$here/build.sh")
rules=$ROOT/integrations/prometheus/rules.yaml
boards=("$ROOT"/integrations/grafana/*.json)

"$bin/promtool" check rules --lint=all --lint-fatal "$rules" >/dev/null
"$bin/promtool" check config --syntax-only "$ROOT/integrations/prometheus/scrape.yaml" >/dev/null
"$bin/promtool" test rules "$here/rules.test.yaml" >/dev/null
for page in $(sed -n 's|.*runbook_url: .*/docs/runbooks/||p' "$rules"); do
  [[ -s $ROOT/docs/runbooks/$page ]] || fail "there is no runbook $page"
done
for alert in $(sed -n 's/.*- alert: //p' "$rules"); do
  grep -q "alertname: $alert$" "$here/rules.test.yaml" || fail "$alert is not tested"
  grep -qr "\`$alert\`" "$ROOT/docs/runbooks" || fail "no runbook names $alert"
done

# A dashboard shows what the table lists, all of it, and nothing else.
documented=$(grep -oE '^\| `[a-z_]+` \|' "$ROOT/docs/metrics.md" | tr -d '|` ')
shown=$(jq -r '.panels[].targets[].expr' "${boards[@]}" | grep -oE '\b(hebb|process|worker|queue|tasks|total|accepted|rejected|moral|memory|cpu|avg|patterns|throughput)_[a-z_]+' | sed -E 's/_bucket$//' | sort -u)
diff --label docs/metrics.md --label integrations/grafana -u <(sort -u <<<"$documented") <(printf '%s\n' "$shown") >&2 ||
  fail "the dashboards don't show the metrics of the table"

for board in "${boards[@]}"; do
  jq --exit-status '[.panels[] | .id, .gridPos] as $all | ($all | length) == ($all | unique | length)' "$board" >/dev/null ||
    fail "$board has two panels of one number or at one place"
done

# What is counted in bytes or seconds has an axis of its own beside what is from 0 to 1.
jq --exit-status '.panels[] | select(.targets[].expr | test("hebb_meta_learning")) | [.fieldConfig.overrides[].matcher.options] |
  contains(["meta_memory_bytes", "stuck_phase_seconds"])' "$ROOT/integrations/grafana/learningcluster.json" >/dev/null ||
  fail "the panel of meta-learning draws bytes on the axis of ratios"

stage "$(realpath "$1")"
port=$((29000 + $$ % 900))
cat >"$WORK/prometheus.yml" <<EOF2
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$rules"]
scrape_configs:
  - job_name: hebb
    static_configs:
      - {targets: ["$GATEWAY"], labels: {namespace: default, learningcluster: demo, component: gateway, pod: demo-gateway}}
      - {targets: ["$COORDINATOR"], labels: {namespace: default, learningcluster: demo, component: coordinator, pod: demo-coordinator}}
      - {targets: ["$WORKER"], labels: {namespace: default, learningcluster: demo, component: worker, pod: demo-worker}}
  - job_name: hebb-operator
    static_configs: [{targets: ["$OPERATOR"], labels: {namespace: hebb-system, pod: hebb-operator}}]
EOF2
"$bin/prometheus" --config.file="$WORK/prometheus.yml" --storage.tsdb.path="$WORK/tsdb" --web.listen-address="127.0.0.1:$port" \
  --log.level=error &
STARTED+=($!)
within 30 "Prometheus" answers "127.0.0.1:$port/-/ready"

# has_data EXPR: at least one value, and it is a number.
has_data() {
  curl --silent --fail --get --data-urlencode "query=$1" "http://127.0.0.1:$port/api/v1/query" |
    jq --exit-status '[.data.result[].value[1] | select(. != "NaN")] | length > 0'
}
count=0
while IFS= read -r expr; do
  expr=${expr//'$__rate_interval'/1m}
  expr=${expr//'$namespace'/default}
  expr=${expr//'$learningcluster'/demo}
  expr=${expr//'$domain'/.*}
  within 90 "data for: $expr" has_data "$expr"
  count=$((count + 1))
done < <(
  jq -r '.panels[].targets[].expr' "${boards[@]}"
  # What the variables choose from.
  jq -r '.templating.list[] | select(.type == "query").query' "${boards[@]}" | sed -E 's/^label_values\((.*), [a-z]+\)$/\1/'
)

# No rule fails here, and none fires on a cluster that is well.
judged() {
  curl --silent --fail "http://127.0.0.1:$port/api/v1/rules" |
    jq --exit-status '[.data.groups[].rules[]] | length > 0 and all(.health == "ok" and .state != "firing")'
}
within 30 "rules that are well and silent" judged
kill "${STARTED[0]}"
fires() {
  curl --silent --fail "http://127.0.0.1:$port/api/v1/rules" |
    jq --exit-status '.data.groups[].rules[] | select(.name == "HebbServiceDown") | .state == "pending"'
}
within 15 "HebbServiceDown, after hebb start was ended" fires
echo "monitoring: rules and $count queries of ${#boards[@]} dashboards are as they should be"
