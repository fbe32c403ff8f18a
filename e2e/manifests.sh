#!/usr/bin/env bash
# The manifests are what the chart gives, and the overlays are what they say.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
kubectl=$("$root/e2e/cluster/binaries.sh" kubectl)/kubectl
manifests=$root/manifests
fail() {
  echo "manifests: $*" >&2
  exit 1
}
kinds() { grep '^kind: ' | sort | uniq -c | awk '{print $1 " " $3}' | paste -sd, -; }

"$manifests/generate.sh" --check
cluster_wide=$("$kubectl" kustomize "$manifests/overlays/cluster-wide")
namespaced=$("$kubectl" kustomize "$manifests/overlays/namespaced")
common='1 Deployment,1 Namespace,1 PodDisruptionBudget'
[[ $(kinds <<<"$cluster_wide") == "1 ClusterRole,1 ClusterRoleBinding,2 CustomResourceDefinition,$common,1 Role,1 RoleBinding,1 Service,1 ServiceAccount" ]] ||
  fail "the overlay cluster-wide holds: $(kinds <<<"$cluster_wide")"
[[ $(kinds <<<"$namespaced") == "2 CustomResourceDefinition,$common,2 Role,2 RoleBinding,1 Service,1 ServiceAccount" ]] ||
  fail "the overlay namespaced holds: $(kinds <<<"$namespaced")"
[[ $(kinds < <("$kubectl" kustomize "$manifests/crds")) == '2 CustomResourceDefinition' ]] || fail "crds holds more than the definitions"
# A plain "=" is a text in YAML 1.2 only.
if grep -rnE '(:|-) +=$' "$manifests" "$root/crds" "$root/charts"; then fail "readers of YAML 1.1 refuse a plain ="; fi
if grep -qi 'helm' <<<"$cluster_wide$namespaced"; then fail "something only for Helm is left"; fi

# Another namespace is a line in somebody's kustomization, and nothing stays behind in hebb-system.
moved=$(mktemp -d)
trap 'rm -rf "$moved"' EXIT
printf 'resources: [%s]\nnamespace: team\n' "$(realpath --relative-to="$moved" "$manifests/overlays/namespaced")" >"$moved/kustomization.yaml"
team=$("$kubectl" kustomize "$moved")
if grep -q 'hebb-system' <<<"$team"; then fail "a moved installation still names hebb-system"; fi
grep -A3 'name: WATCH_NAMESPACE' <<<"$team" | grep -q 'fieldPath: metadata.namespace' || fail "a moved operator watches another namespace"
echo "manifests: as they should be"
