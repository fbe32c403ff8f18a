#!/usr/bin/env bash
# Brings up a Kubernetes to develop and test Hebb on, or finds that it is up.
#   up.sh                   the cluster of the last time; else kind or k3d where a container engine answers; else the single
#                           node of its own (Linux, root)
#   CLUSTER=kind|k3d|local up.sh        that one
#   CLUSTER=CONTEXT up.sh               the cluster of this context of your kubeconfig; nothing is installed into it
# KIND_IMAGE and KIND_CONFIG name the node image and the configuration of a new kind cluster, K3D_IMAGE the image of a new k3d
# cluster, where theirs won't do.
# How to use it afterwards: eval "$(e2e/cluster/env.sh)"
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for part in process pki apiserver oci node node-clean; do
  # shellcheck source=/dev/null
  source "$CLUSTER_DIR/$part.sh"
done

choose() {
  if [[ -n ${CLUSTER:-} ]]; then
    case $CLUSTER in
    kind | k3d | local) printf '%s\n' "$CLUSTER" ;;
    *) echo context ;;
    esac
  elif [[ -s $STATE/kind ]]; then
    cat "$STATE/kind"
  elif have kind && { engine_answers || engine_answers podman; }; then
    echo kind
  elif have k3d && engine_answers; then
    echo k3d
  elif [[ $(uname -s) == Linux ]] && ((EUID == 0)); then
    echo local
  else
    die "no cluster to be had: start Docker and install kind or k3d, name a context with CLUSTER=, or run as root on Linux"
  fi
}

# The user's own tools will do for a cluster that is not built here.
client_tools() {
  local missing=()
  have kubectl || missing+=(kubectl)
  have helm || missing+=(helm)
  ((${#missing[@]} == 0)) || "$CLUSTER_DIR/binaries.sh" "${missing[@]}" >/dev/null
  PATH=$(bin_dir):$PATH
}

local_up() {
  if [[ $(uname -s) != Linux ]] || ((EUID != 0)); then die "the node of its own needs Linux and root"; fi
  "$CLUSTER_DIR/packages.sh" node tools redis
  PATH=$("$CLUSTER_DIR/binaries.sh"):$PATH
  export PATH
  if node_healthy; then
    step "the cluster is up"
    return
  fi
  node_up
  install -m600 "$D/admin.kubeconfig" "$STATE/kubeconfig"
}

load_test_images() {
  local image
  for image in tools redis; do "$CLUSTER_DIR/images.sh" "$image" >/dev/null; done
  kubectl --kubeconfig "$STATE/kubeconfig" apply -f "$CLUSTER_DIR/addons/storage-class.yaml" >/dev/null
}

kind_up() {
  client_tools
  if ! run_kind get clusters 2>/dev/null | grep -qx hebb; then
    step "making a kind cluster named hebb"
    rm -rf "$STATE/images"
    run_kind create cluster --name hebb --wait 180s --kubeconfig "$STATE/kubeconfig" \
      ${KIND_IMAGE:+--image "$KIND_IMAGE"} ${KIND_CONFIG:+--config "$KIND_CONFIG"} >&2
  fi
  run_kind get kubeconfig --name hebb >"$STATE/kubeconfig"
  load_test_images
}

k3d_up() {
  client_tools
  if ! k3d cluster get hebb >/dev/null 2>&1; then
    step "making a k3d cluster named hebb"
    rm -rf "$STATE/images"
    k3d cluster create hebb --wait --kubeconfig-update-default=false ${K3D_IMAGE:+--image "$K3D_IMAGE"} >&2
  fi
  k3d kubeconfig get hebb >"$STATE/kubeconfig"
  load_test_images
}

context_up() {
  client_tools
  local context=${CLUSTER:-$(cat "$STATE/context" 2>/dev/null)}
  kubectl config view --minify --flatten --raw --context="$context" >"$STATE/kubeconfig.new" ||
    die "no context '$context' in your kubeconfig"
  mv "$STATE/kubeconfig.new" "$STATE/kubeconfig"
  printf '%s\n' "$context" >"$STATE/context"
  kubectl --kubeconfig "$STATE/kubeconfig" --request-timeout=20s get --raw /readyz >/dev/null || die "'$context' does not answer"
}

main() {
  local kind
  umask 022
  mkdir -p "$STATE"
  exec 9>"$HEBB_CACHE/cluster.lock"
  flock -n 9 || { say "waiting for another cluster-up or cluster-down …" && flock 9; }
  kind=$(choose)
  if [[ -s $STATE/kind && $(cat "$STATE/kind") != "$kind" ]]; then
    die "a cluster of kind '$(cat "$STATE/kind")' is up: run down.sh first"
  fi
  printf '%s\n' "$kind" >"$STATE/kind"
  case $kind in
  local) local_up ;;
  kind) kind_up ;;
  k3d) k3d_up ;;
  context) context_up ;;
  esac
  say "ready after ${SECONDS}s. Kubeconfig: $STATE/kubeconfig"
  say "To use it: eval \"\$(e2e/cluster/env.sh)\"; \$HEBB_IN_NODE kubectl get pods -A"
}

main "$@"
exit
