#!/usr/bin/env bash
# Only etcd and kube-apiserver, on free ports of the loopback address: for tests of controllers, which need no pods.
#   control-plane.sh up DIR [controllers]    prints the kubeconfig's path; the audit log is DIR/audit/audit.log
#   control-plane.sh down DIR                ends exactly what up started, and removes DIR
# Any user may run it, and any number at once, each with a DIR of its own.
# With 'controllers' kube-controller-manager runs as well: namespaces go away, owned objects are collected, default
# ServiceAccounts appear (without it, a Pod is refused until its ServiceAccount is made by hand).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/process.sh"
source "$CLUSTER_DIR/pki.sh"
source "$CLUSTER_DIR/apiserver.sh"

MARK=.hebb-control-plane

in_use() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that the system hands out by itself, so that no client's connection takes it meanwhile.
free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    in_use "$port" || break
  done
  printf '%s\n' "$port"
}

create_identities() {
  create_authority
  issue apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  issue admin "/O=system:masters/CN=admin"
  issue controller-manager /CN=system:kube-controller-manager
}

ready() { kubectl --kubeconfig "$D/kubeconfig" get --raw /readyz; }
# A port that another program took in between shows as a server that ended at once.
ready_or_dead() { ready || ! alive etcd || ! alive apiserver; }

try_up() {
  local etcd peer port
  etcd=$(free_port)
  peer=$(free_port)
  port=$(free_port)
  rm -rf "$D/etcd"
  etcd_flags "$etcd" "$peer"
  apiserver_flags "$etcd" "$port"
  write_kubeconfig admin "https://127.0.0.1:$port" "$D/kubeconfig"
  start etcd etcd "${ETCD_FLAGS[@]}"
  # No node needs the address of this server, and a loopback address can't be an endpoint anyway.
  start apiserver kube-apiserver "${APISERVER_FLAGS[@]}" --bind-address=127.0.0.1 --advertise-address=127.0.0.1 \
    --endpoint-reconciler-type=none
  until_true 60 "the API server" ready_or_dead && ready >/dev/null 2>&1
}

start_controllers() {
  local server
  server=$(sed -n 's/.*server: "\([^"]*\)".*/\1/p' "$D/kubeconfig")
  write_kubeconfig controller-manager "$server" "$D/controller-manager.kubeconfig"
  start controller-manager kube-controller-manager --kubeconfig="$D/controller-manager.kubeconfig" --leader-elect=false \
    --service-account-private-key-file="$D/pki/sa.key" --root-ca-file="$D/pki/ca.crt" --use-service-account-credentials \
    --bind-address=127.0.0.1 --secure-port=0 --kube-api-qps=1000 --kube-api-burst=2000 \
    --concurrent-deployment-syncs=16 --concurrent-replicaset-syncs=16 --concurrent-statefulset-syncs=16 \
    --controllers='*,-node-lifecycle-controller' # no kubelet says that a node lives
  until_true 30 "the default ServiceAccount" \
    kubectl --kubeconfig "$D/kubeconfig" -n default get serviceaccount default
}

up() {
  local bin
  "$CLUSTER_DIR/packages.sh" control-plane
  bin=$("$CLUSTER_DIR/binaries.sh" api ${WITH_CONTROLLERS:+kube-controller-manager})
  export PATH=$bin:$PATH
  if alive etcd && alive apiserver && ready >/dev/null 2>&1; then
    printf '%s\n' "$D/kubeconfig"
    return
  fi
  clean
  mkdir -p "$D"
  touch "$D/$MARK"
  create_identities
  for _ in 1 2 3; do
    if try_up; then
      [[ -z $WITH_CONTROLLERS ]] || start_controllers
      printf '%s\n' "$D/kubeconfig"
      return
    fi
    stop_all
  done
  last_words apiserver
  last_words etcd
  die "the control plane did not come up"
}

stop_all() {
  stop controller-manager KILL
  stop apiserver KILL
  stop etcd KILL
}

clean() {
  stop_all
  # Only a folder of our own is removed, whatever was given as DIR.
  if [[ -e $D/$MARK ]]; then
    rm -rf "${D:?}"
  elif [[ -n $(ls -A "$D" 2>/dev/null) ]]; then
    die "$D is not empty, and not a control plane's folder"
  fi
}

[[ -n ${2:-} ]] || die "usage: control-plane.sh up|down DIR [controllers]"
D=$(realpath -m "$2")
WITH_CONTROLLERS=${3:-}
case $1 in
up) up ;;
down) clean ;;
*) die "usage: control-plane.sh up|down DIR [controllers]" ;;
esac
