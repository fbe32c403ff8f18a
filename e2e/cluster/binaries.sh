#!/usr/bin/env bash
# Builds the programs of the development cluster from their Go modules, once, into a cache.
#   binaries.sh [GROUP…]    groups: api (etcd, kube-apiserver, kubectl), helm, node (the rest), or a program's name
# All by default. Prints the folder that holds them. Needs Go and nothing else; every go.sum is committed, so builds are the
# same anywhere.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KUBE=k8s.io/kubernetes/cmd
# NAME MODULE-FOLDER PACKAGE, in the order of use: API server tests can begin long before the node is there.
API_BINARIES="
etcd etcd go.etcd.io/etcd/server/v3
kube-apiserver kubernetes $KUBE/kube-apiserver
kubectl kubernetes $KUBE/kubectl"
HELM_BINARIES="
helm helm helm.sh/helm/v3/cmd/helm"
NODE_BINARIES="
kubelet kubernetes $KUBE/kubelet
kube-controller-manager kubernetes $KUBE/kube-controller-manager
kube-scheduler kubernetes $KUBE/kube-scheduler
kube-proxy kubernetes $KUBE/kube-proxy
local-path-provisioner local-path-provisioner github.com/rancher/local-path-provisioner
coredns coredns ."

# Without these, the API server would call itself v0.0.0 and charts' version checks would fail.
kubernetes_ldflags() {
  local package minor=${KUBERNETES_VERSION#*.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s.gitVersion=v%s -X %s.gitMajor=%s -X %s.gitMinor=%s ' "$package" "$KUBERNETES_VERSION" \
      "$package" "${KUBERNETES_VERSION%%.*}" "$package" "${minor%%.*}"
  done
}

# A build goes to a temporary name first: a killed one leaves nothing that looks finished.
build() {
  local name=$1 module=$2 package=$3 ldflags='-s -w' began=$SECONDS
  [[ -x $BIN/$name ]] && return
  case $module in kubernetes) ldflags+=" $(kubernetes_ldflags)" ;; esac
  say "    building $name …"
  (cd "$CLUSTER_DIR/$module" &&
    CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' nice go build -trimpath -ldflags "$ldflags" -o "$BIN/.$name.$$" "$package")
  mv "$BIN/.$name.$$" "$BIN/$name"
  say "    built $name in $((SECONDS - began))s"
}

build_list() {
  local name module package
  while read -r name module package; do
    [[ -z $name ]] || build "$name" "$module" "$package" </dev/null
  done
}

main() {
  local lists='' group
  (($#)) || set -- api helm node
  for group in "$@"; do
    case $group in
    api) lists+=$API_BINARIES ;;
    helm) lists+=$HELM_BINARIES ;;
    node) lists+=$NODE_BINARIES ;;
    *) lists+=$'\n'$(one_binary "$group") || die "unknown group or program '$group'" ;;
    esac
  done
  have go || die "Go is needed to build the cluster's programs (or name another cluster with CLUSTER=)"
  BIN=$(bin_dir)
  if missing_any "$lists"; then
    mkdir -p "$BIN"
    exec 9>"$BIN/../lock"
    flock -n 9 || { say "    another build is under way, waiting for it …" && flock 9; }
    rm -f "$BIN"/.*.[0-9]*
    step "building the cluster's programs (20 minutes on two cores the first time, then cached)"
    build_list <<<"$lists"
  fi
  printf '%s\n' "$BIN"
}

one_binary() { grep "^$1 " <<<"$API_BINARIES$HELM_BINARIES$NODE_BINARIES"; }

missing_any() {
  local name rest
  while read -r name rest; do
    [[ -z $name || -x $BIN/$name ]] || return 0
  done <<<"$1"
  return 1
}

main "$@"
exit
