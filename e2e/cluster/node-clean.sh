# shellcheck shell=bash
# Removes all that a node of node.sh leaves, whether it was stopped or killed. To be sourced after node.sh.

# Each container's folder bears its id, and so do its control groups, whatever became of its shim.
container_ids() { find "$D"/containerd/state/io.containerd.runtime.v2.task/k8s.io -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null || true; }

kill_containers() {
  local ids groups
  ids=$(container_ids)
  [[ -n $ids ]] || return 0
  groups=$(find /sys/fs/cgroup -type d -path '*kubepods*' 2>/dev/null | grep -F "$ids" || true)
  [[ -z $groups ]] || while read -r group; do
    # A group may go away while it is looked at.
    { xargs -r kill -KILL <"$group/cgroup.procs"; } 2>/dev/null || true
  done <<<"$groups"
}

# A shim is known by the socket of the containerd that it was started by.
kill_shims() {
  local process
  for process in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "^[^ ]*containerd-shim[^ ]* .*-address $D/containerd.sock"; then
      kill -KILL "${process#/proc/}" 2>/dev/null || true
    fi
  done
}

remove_sockets() {
  local address
  for address in "$D"/containerd/state/io.containerd.runtime.v2.task/k8s.io/*/address; do
    [[ ! -f $address ]] || rm -f "$(sed 's|^unix://||' "$address")"
  done
}

our_mounts() { awk -v d="$D/" 'index($2, d) == 1 {print $2}' /proc/mounts | sort -r; }

# The results of pods' networks are kept outside, by the pod sandbox's id.
remove_network_results() {
  local sandbox
  for sandbox in "$D"/containerd/root/io.containerd.grpc.v1.cri/sandboxes/*; do
    rm -f "/var/lib/cni/results/cni-loopback-${sandbox##*/}-lo" "/var/lib/cni/results/hebb-pods-${sandbox##*/}-eth0"
  done
}

# What the programs insist on leaving elsewhere.
remove_traces() {
  find /var/log/containers -lname "$D/*" -delete 2>/dev/null || true
  rm -rf /var/lib/cni/results/hebb-pods-*
  # The kubelet makes this one wherever its own folder is; another kubelet's would hold more.
  [[ $(ls -A /var/lib/kubelet 2>/dev/null) != device-plugins ]] || rm -rf /var/lib/kubelet/device-plugins
  find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} \; 2>/dev/null || true
  rmdir /var/lib/cni/results /var/lib/cni/networks /var/lib/cni /var/lib/kubelet /var/log/containers /run/containerd/s /run/containerd \
    2>/dev/null || true
}

node_clean() {
  local name
  [[ -d $D || -e /run/netns/$NETNS ]] || return 0
  for name in kube-proxy kubelet scheduler controller-manager apiserver etcd; do stop "$name" KILL; done
  kill_containers
  kill_shims
  stop containerd KILL
  kill_containers
  remove_sockets
  remove_network_results
  for _ in {1..20}; do
    our_mounts | xargs -r -n1 umount -l 2>/dev/null || true
    [[ -n $(our_mounts) ]] || break
    sleep 0.2
  done
  [[ -z $(our_mounts) ]] || die "still mounted, not removing $D: $(our_mounts)"
  ip netns del "$NETNS" 2>/dev/null || true
  rm -rf --one-file-system "${D:?}"
  remove_traces
}
