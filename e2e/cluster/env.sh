#!/usr/bin/env bash
# How to use the cluster of up.sh: eval "$(e2e/cluster/env.sh)", or in bash also: source e2e/cluster/env.sh
#   KUBECONFIG       its kubeconfig
#   PATH             with the built kubectl, helm, etcd … in front
#   HEBB_CLUSTER     what it is: local, kind, k3d or context
#   HEBB_IN_NODE     the words in front of every command that talks to it; empty unless it has a network of its own
#   HEBB_AUDIT_LOG   its log of API writes; empty where there is none
#   HEBB_PKI         the folder of its certificates and keys; empty where they aren't at hand
#   HEBB_STORAGE_CLASS   a class that gives volumes; empty for the cluster's default

if [[ ${BASH_SOURCE[0]} != "$0" ]]; then
  eval "$(bash "${BASH_SOURCE[0]}" || echo false)"
  return
fi

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
  local kind in_node='' audit='' pki='' class=local
  [[ -s $STATE/kind && -s $STATE/kubeconfig ]] || die "no cluster is up: run e2e/cluster/up.sh"
  kind=$(cat "$STATE/kind")
  case $kind in
  local)
    in_node='nsenter --net=/run/netns/hebb-node'
    audit=$STATE/node/audit/audit.log
    pki=$STATE/node/pki
    ;;
  context) class='' ;;
  esac
  printf 'export KUBECONFIG=%q\n' "$STATE/kubeconfig"
  printf 'export HEBB_CLUSTER=%q HEBB_IN_NODE=%q HEBB_AUDIT_LOG=%q HEBB_PKI=%q HEBB_STORAGE_CLASS=%q\n' \
    "$kind" "$in_node" "$audit" "$pki" "$class"
  # Where the programs were not built, the user's own are used.
  # shellcheck disable=SC2016
  if [[ -d $(bin_dir) ]]; then printf 'export PATH=%q:"$PATH"\n' "$(bin_dir)"; fi
}

main
