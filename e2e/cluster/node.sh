# shellcheck shell=bash
# A Kubernetes of one node without a container engine, in a network namespace that has no way out. To be sourced after
# lib.sh, process.sh, pki.sh and apiserver.sh; needs root. Everything it makes is inside $D, or removed by node_clean.

D=$STATE/node
NETNS=hebb-node
NODE_IP=10.88.0.1
IN_NODE=(nsenter "--net=/run/netns/$NETNS")
SERVER=https://127.0.0.1:6443

in_node() { "${IN_NODE[@]}" "$@"; }
kube() { in_node kubectl --kubeconfig "$D/admin.kubeconfig" "$@"; }
boot_id() { cat /proc/sys/kernel/random/boot_id; }

made_of() {
  (cd "$CLUSTER_DIR" && cat audit-policy.yaml apiserver.sh pki.sh node.sh node/* addons/*) | sha256sum
}

# A state is worth keeping when the machine still runs that it belongs to, and with it what holds the state in memory; and
# when it was made of the files that are here now: a test may rely on their settings.
node_usable() {
  [[ $(cat "$D/boot" 2>/dev/null) == "$(boot_id)" && -e /run/netns/$NETNS ]] &&
    [[ $(cat "$D/made-of" 2>/dev/null) == "$(made_of)" ]] &&
    alive etcd && alive apiserver && alive containerd
}

node_healthy() {
  local name
  node_usable || return 1
  for name in controller-manager scheduler kubelet kube-proxy; do alive "$name" || return 1; done
  [[ -e $D/complete ]] && kube get --raw /readyz >/dev/null 2>&1
}

create_network() {
  ip netns add "$NETNS"
  # The far end of the pair stays inside as well: there is an address and a default route, but nothing behind them.
  in_node sh -ec "ip link set lo up
    ip link add node0 type veth peer name node1
    ip link set node1 up
    ip addr add $NODE_IP/24 dev node0
    ip link set node0 up
    ip route add default dev node0
    sysctl -qw net.ipv4.ip_forward=1"
}

create_identities() {
  create_authority
  issue apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:10.96.0.1,IP:$NODE_IP,DNS:localhost,DNS:kubernetes,\
DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  issue admin "/O=system:masters/CN=admin"
  issue controller-manager /CN=system:kube-controller-manager
  issue scheduler /CN=system:kube-scheduler
  issue kubelet "/O=system:nodes/CN=system:node:node1" "DNS:node1,IP:127.0.0.1,IP:$NODE_IP"
  issue kube-proxy /CN=system:kube-proxy
  issue front-proxy /CN=front-proxy-client
  local who
  for who in admin controller-manager scheduler kubelet kube-proxy; do
    write_kubeconfig "$who" "$SERVER" "$D/$who.kubeconfig"
  done
}

write_configs() {
  local snapshotter=overlayfs
  # An overlay can't be laid over another one, which is what a container's own files are.
  [[ $(stat -f -c %T "$D") != overlayfs ]] || snapshotter=native
  mkdir -p "$D"/{cni,containerd,kubelet,volumes,pod-logs}
  sed "s|@D@|$D|g" "$CLUSTER_DIR/node/cni.conflist" >"$D/cni/10-hebb.conflist"
  sed "s|@D@|$D|g; s|@SNAPSHOTTER@|$snapshotter|" "$CLUSTER_DIR/node/containerd.toml" >"$D/containerd.toml"
  sed "s|@D@|$D|g" "$CLUSTER_DIR/node/kubelet.yaml" >"$D/kubelet.yaml"
  # No name but the cluster's can be looked up.
  echo 'nameserver 127.0.0.1' >"$D/resolv.conf"
}

# start_in_node NAME COMMAND…: unless it runs already.
start_in_node() {
  local name=$1
  shift
  alive "$name" || start "$name" "${IN_NODE[@]}" "$@"
}

start_servers() {
  local pki=$D/pki
  etcd_flags 2379 2380
  apiserver_flags 2379 6443
  start_in_node containerd containerd -c "$D/containerd.toml"
  start_in_node etcd etcd "${ETCD_FLAGS[@]}"
  start_in_node apiserver kube-apiserver "${APISERVER_FLAGS[@]}" --advertise-address=$NODE_IP --allow-privileged \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --kubelet-preferred-address-types=InternalIP,Hostname \
    --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy-client \
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra-
}

start_agents() {
  local pki=$D/pki
  start_in_node controller-manager kube-controller-manager --kubeconfig="$D/controller-manager.kubeconfig" \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials \
    --allocate-node-cidrs --cluster-cidr=10.244.0.0/16 --leader-elect=false \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key"
  start_in_node scheduler kube-scheduler --kubeconfig="$D/scheduler.kubeconfig" --leader-elect=false
  start_in_node kubelet kubelet --config="$D/kubelet.yaml" --kubeconfig="$D/kubelet.kubeconfig" \
    --hostname-override=node1 --node-ip=$NODE_IP --root-dir="$D/kubelet"
  # The kernel's own settings of connection tracking belong to the machine, and are left as they are.
  start_in_node kube-proxy kube-proxy --kubeconfig="$D/kube-proxy.kubeconfig" --hostname-override=node1 \
    --cluster-cidr=10.244.0.0/16 --proxy-mode=nftables --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

node_ready() { kube get node node1 | grep -q ' Ready'; }

load_node_images() {
  local image
  for image in pause coredns local-path-provisioner tools redis; do "$CLUSTER_DIR/images.sh" "$image" >/dev/null; done
}

install_addons() {
  sed "s|VOLUMES|$D/volumes|" "$CLUSTER_DIR/addons/local-path.yaml" |
    kube apply --server-side --force-conflicts -f - -f "$CLUSTER_DIR/addons/coredns.yaml" \
      -f "$CLUSTER_DIR/addons/storage-class.yaml" >/dev/null
  kube annotate --overwrite storageclass local storageclass.kubernetes.io/is-default-class=true >/dev/null
}

addons_ready() {
  kube -n kube-system rollout status deployment/coredns --timeout=1s &&
    kube -n local-path-storage rollout status deployment/local-path-provisioner --timeout=1s
}

node_up() {
  if ! node_usable; then
    node_clean
    mkdir -p "$D"
    step "making a node of its own in the network namespace $NETNS"
    boot_id >"$D/boot"
    made_of >"$D/made-of"
    create_network
    create_identities
    write_configs
  else
    step "starting what is missing"
  fi
  start_servers
  step "waiting for the API server, and loading images"
  until_true 30 "containerd" ctr -a "$D/containerd.sock" version || { last_words containerd && return 1; }
  load_node_images
  until_true 60 "the API server" kube get --raw /readyz || { last_words apiserver && return 1; }
  start_agents
  install_addons
  step "waiting for the node, DNS and volumes"
  until_true 60 "the node" node_ready || { last_words kubelet && return 1; }
  until_true 90 "DNS and volumes" addons_ready || { kube get pods -A >&2 && last_words kubelet && return 1; }
  touch "$D/complete"
}
