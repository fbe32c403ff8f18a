#!/usr/bin/env bash
# cert-manager on the cluster that is up, as its own chart installs it, with the right of Hebb's operator to ask it.
#   cert-manager.sh up | down       either may be run again
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/env.sh"

SPACE=cert-manager

kube() { $HEBB_IN_NODE "$(type -P kubectl)" "$@"; }
helm() { $HEBB_IN_NODE "$(type -P helm)" "$@"; }

# The module holds the chart in parts, which its release puts together so: the definitions go among the templates.
write_chart() {
  local module chart=$1
  module=$(cd "$CLUSTER_DIR/optional/cert-manager" && GOWORK=off go list -m -f '{{.Dir}} {{.Version}}' github.com/cert-manager/cert-manager)
  local from=${module% *}/deploy version=${module##* }
  mkdir -p "$chart/templates"
  cp "$from"/charts/cert-manager/values.yaml "$chart/"
  cp "$from"/charts/cert-manager/templates/* "$chart/templates/"
  sed "s/v0\.1\.0/$version/; /annotations:/,\$d" "$from/charts/cert-manager/Chart.template.yaml" >"$chart/Chart.yaml"
  local definition
  for definition in "$from"/crds/crd-*.yaml; do
    cat "$definition"
    echo '---'
  done >"$chart/templates/crds.yaml"
}

install_manager() {
  # Its leases go with the namespace: the next installation would wait for those of the last.
  local part options=(--set "startupapicheck.enabled=false,global.leaderElection.namespace=$SPACE")
  for part in controller webhook cainjector; do
    "$CLUSTER_DIR/images.sh" "cert-manager-$part" >/dev/null
    local image=$part.image
    [[ $part != controller ]] || image=image
    options+=(--set "$image.repository=localhost/hebb/cert-manager-$part,$image.tag=1,$image.pullPolicy=Never")
  done
  CHART=$(mktemp -d)
  trap 'rm -r "$CHART"' EXIT
  write_chart "$CHART"
  step "installing cert-manager"
  helm upgrade --install cert-manager "$CHART" --namespace $SPACE --create-namespace --wait --timeout 180s "${options[@]}" >/dev/null
  # It is ready before the API server trusts its webhook.
  until_true 60 "cert-manager's webhook" issuer_taken
}

issuer_taken() {
  printf '%s\n' 'apiVersion: cert-manager.io/v1' 'kind: ClusterIssuer' 'metadata: {name: try}' 'spec: {selfSigned: {}}' |
    kube apply --dry-run=server -f -
}

# allow true|false: whether the operator may ask it.
allow() {
  helm upgrade hebb "$CLUSTER_DIR/../../charts/hebb" --namespace hebb-system --reuse-values --wait --timeout 120s \
    --set "certManager.enabled=$1" >/dev/null
}

case ${1:-} in
up)
  install_manager
  allow true
  ;;
down)
  step "removing cert-manager"
  allow false
  helm uninstall cert-manager --namespace $SPACE --ignore-not-found --wait >/dev/null
  kube delete namespace $SPACE --ignore-not-found >/dev/null
  ;;
*) die "usage: cert-manager.sh up|down" ;;
esac
