#!/usr/bin/env bash
# The chart renders with every option, says what it should, and refuses values that it doesn't know.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
helm=$("$root/e2e/cluster/binaries.sh" helm)/helm
chart=$root/charts/hebb
render() { "$helm" template hebb "$chart" --namespace hebb-system "$@"; }
fail() {
  echo "chart: $*" >&2
  exit 1
}
# expect TEXT VALUES…: what is rendered with the values holds the text.
expect() {
  local text=$1 out
  shift
  out=$(render "$@")
  grep -qF -- "$text" <<<"$out" || fail "no '$text' with: $*"
}
# refuse VALUES…: they are no valid values.
refuse() { if render "$@" >/dev/null 2>&1; then fail "taken, but not valid: $*"; fi; }

"$helm" lint --strict --quiet "$chart"
digest=sha256:$(printf 'a%.0s' {1..64})
expect "ghcr.io/hebb-dev/hebb@$digest" --set image.digest="$digest"
expect 'ghcr.io/hebb-dev/hebb:0.1.0'
expect 'replicas: 2'
expect 'kind: PodDisruptionBudget'
if grep -q 'kind: PodDisruptionBudget' < <(render --set replicas=1); then fail "the only operator may never be evicted"; fi
expect 'kind: ClusterRoleBinding'
expect 'kind: RoleBinding' --set watchNamespace=team
expect 'secret: {secretName: "ca", items: [{key: "ca.crt", path: ca.crt}]}' --set receiverCA.kind=Secret,receiverCA.name=ca
expect 'configMap: {name: "ca", items: [{key: "ca.pem", path: ca.crt}]}' --set receiverCA.name=ca,receiverCA.key=ca.pem
expect 'HEBB_RECEIVER_CA' --set receiverCA.name=ca
expect 'kind: ServiceMonitor' --set serviceMonitor.enabled=true
expect 'topologySpreadConstraints:' --set 'topologySpreadConstraints[0].maxSkew=1'
expect 'name: EXTRA' --set 'extraEnv[0].name=EXTRA,extraEnv[0].value=x'
expect 'apiGroups: [cert-manager.io]' --set certManager.enabled=true
plain=$(render)
if grep -q 'apiGroups: .cert-manager.io' <<<"$plain"; then fail "rights on cert-manager's objects that nobody asked for"; fi
namespaced=$(render --set watchNamespace=team)
if grep -q 'kind: ClusterRole' <<<"$namespaced"; then fail "a namespaced operator has cluster-wide rights"; fi
expect 'kind: PodMonitor' --set podMonitor.enabled=true
expect '{any: true}' --set podMonitor.enabled=true
expect '{matchNames: [team]}' --set podMonitor.enabled=true,watchNamespace=team
expect 'kind: PrometheusRule' --set prometheusRule.enabled=true
expect 'alert: HebbServiceDown' --set prometheusRule.enabled=true
expect 'alert: HebbOperatorDown' --set prometheusRule.enabled=true,serviceMonitor.enabled=true
if grep -q HebbOperatorDown < <(render --set prometheusRule.enabled=true); then fail "an operator that nobody scrapes is told to be down"; fi
expect 'release: kps' --set prometheusRule.enabled=true,prometheusRule.labels.release=kps
expect 'grafana_dashboard: "1"' --set grafanaDashboards.enabled=true
expect 'hebb-operator.json: ' --set grafanaDashboards.enabled=true
policies=(--set 'defaultAlertPolicies.namespaces={a,b}' --api-versions hebb.dev/v1alpha1/AlertPolicy)
expect 'namespace: b' "${policies[@]}"
expect '{{ target }} has learned nothing' "${policies[@]}"
if grep -q '^kind: AlertPolicy' < <(render "${policies[@]:0:2}"); then fail "a policy comes before its definition"; fi
if grep -qE '^kind: (PodMonitor|ServiceMonitor|PrometheusRule|AlertPolicy|ConfigMap|ValidatingWebhookConfiguration|Secret)' < <(render); then fail "what is off by default is on"; fi
webhook=(--set webhook.enabled=true)
expect 'kind: ValidatingWebhookConfiguration' "${webhook[@]}"
expect 'failurePolicy: Ignore' "${webhook[@]}"
expect 'failurePolicy: Fail' "${webhook[@]}" --set webhook.failurePolicy=Fail
expect 'timeoutSeconds: 3' "${webhook[@]}" --set webhook.timeoutSeconds=3
expect 'sideEffects: None' "${webhook[@]}"
expect 'matchLabels: {kubernetes.io/metadata.name: team}' "${webhook[@]}" --set watchNamespace=team
expect '{name: webhook, containerPort: 9444}' "${webhook[@]}" --set webhook.port=9444
expect 'path: /validate/0123456789abcdef' "${webhook[@]}" --set webhook.token=0123456789abcdef
expect 'cert-manager.io/inject-ca-from: hebb-system/hebb-operator-webhook' "${webhook[@]}" --set webhook.certManager.enabled=true
expect 'kind: ClusterIssuer' "${webhook[@]}" --set webhook.certManager.enabled=true,webhook.certManager.issuerRef.name=ca,webhook.certManager.issuerRef.kind=ClusterIssuer
one=$(render "${webhook[@]}")
if grep -qE 'apiVersion: cert-manager|inject-ca-from' <<<"$one"; then fail "a webhook needs cert-manager that nobody asked for"; fi
# value KEY: the text after a key of the rendered webhook.
value() { sed -n "s/^ *$1: *//p" <<<"$one" | head -n 1 | tr -d '"'; }
[[ $(value token) == "$(sed -n 's|^ *path: /validate/||p' <<<"$one")" ]] || fail "the operator and the API server have different tokens"
[[ $(value ca.crt) == "$(value caBundle)" ]] || fail "the API server trusts another authority than the webhook's"
openssl verify -CAfile <(value ca.crt | base64 -d) -verify_hostname hebb-operator-webhook.hebb-system.svc <(value tls.crt | base64 -d) >/dev/null ||
  fail "the certificate isn't the webhook's"
if diff <(grep -v '^ *\(token\|ca.crt\|tls.crt\|tls.key\|caBundle\|path\|hebb.dev/webhook-token\): ' <<<"$one") <(render) | grep '^>'; then fail "the webhook takes something away"; fi
refuse "${webhook[@]}" --set webhook.failurePolicy=Maybe
refuse "${webhook[@]}" --set webhook.timeoutSeconds=31
refuse "${webhook[@]}" --set webhook.token=short
# The API server takes nothing else in a path.
refuse "${webhook[@]}" --set webhook.token=0123456789ABCDEF
value token | grep -qE '^[0-9a-z]{40}$' || fail "a token that the API server refuses: $(value token)"
refuse "${webhook[@]}" --set webhook.port=8080
refuse --set 'defaultAlertPolicies.namespaces={Team}'
refuse "${policies[@]}" --set watchNamespace=a
expect 'namespace: a' --set 'defaultAlertPolicies.namespaces={a}' "${policies[@]:2}" --set watchNamespace=a
refuse --set watchNamespace=Team_X
refuse --set-string 'watchNamespace=a\,b'
expect 'team: a' --set podLabels.team=a
refuse --set 'podLabels.app\.kubernetes\.io/name=mine'
refuse --set 'serviceMonitor.labels.app\.kubernetes\.io/instance=mine'
# A plain "=" is a text in YAML 1.2 only.
if render | grep -E '(:|-) +=$'; then fail "readers of YAML 1.1 refuse a plain ="; fi
refuse --set grafanaDashboards.on=true
refuse --set replica=2
refuse --set image.digest=latest
refuse --set receiverCA.kind=File

# What docs/install.md says of upgrades and of the way back, with a chart that has one value more, on a real API server.
work=$(mktemp -d)
leave() {
  "$root/e2e/cluster/control-plane.sh" down "$work/control-plane" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap leave EXIT
newer=$work/newer
cp -r "$chart" "$newer"
echo 'added: {word: of-the-newer-chart}' >>"$newer/values.yaml"
sed -i '0,/^  "properties": {$/s//&\n    "added": {"type": "object"},/' "$newer/values.schema.json"
cat >"$newer/templates/added.yaml" <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: added}
data: {word: {{ .Values.added.word }}}
YAML
KUBECONFIG=$("$root/e2e/cluster/control-plane.sh" up "$work/control-plane")
export KUBECONFIG
helm() { "$helm" "$1" hebb "${@:2}" --namespace hebb-system; }
manifest() { "$helm" get manifest hebb --namespace hebb-system; }
kept() { grep -q 'name: LOG_LEVEL, value: "debug"' < <(manifest) || fail "$1 has lost a value"; }
helm install "$chart" --create-namespace --set logLevel=debug >/dev/null
if helm upgrade "$newer" --reuse-values >/dev/null 2>&1; then fail "--reuse-values knows of new values: docs/install.md needn't warn"; fi
helm upgrade "$newer" --reset-then-reuse-values >/dev/null
kept "the upgrade"
grep -q 'word: of-the-newer-chart' < <(manifest) || fail "the upgrade lacks a new default"
if helm upgrade "$chart" --reuse-values >/dev/null 2>&1; then fail "the older chart takes newer values: docs/install.md needn't warn"; fi
"$helm" get values hebb --namespace hebb-system --output yaml >"$work/values.yaml"
helm upgrade "$chart" --reset-values --values "$work/values.yaml" --set crds.install=false >/dev/null
kept "the way back"
if grep -q 'CustomResourceDefinition' < <(manifest); then fail "the way back takes the definitions back"; fi
definitions=$("$("$root/e2e/cluster/binaries.sh" kubectl)/kubectl" get crds --output name | grep -c 'hebb.dev$')
((definitions == 2)) || fail "the way back leaves $definitions definitions"
helm upgrade "$newer" --reset-then-reuse-values --set crds.install=true >/dev/null
kept "the upgrade after it"
grep -q 'CustomResourceDefinition' < <(manifest) || fail "the upgrade after it leaves the definitions as they were"
echo "chart: as it should be"
