#!/usr/bin/env bash
# Takes away what up.sh brought up, and nothing else; the built programs and images stay in the cache.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for part in process pki apiserver oci node node-clean; do
  # shellcheck source=/dev/null
  source "$CLUSTER_DIR/$part.sh"
done

main() {
  mkdir -p "$HEBB_CACHE"
  exec 9>"$HEBB_CACHE/cluster.lock"
  flock 9
  case $(cluster_kind) in
  kind) run_kind delete cluster --name hebb >&2 ;;
  k3d) k3d cluster delete hebb >&2 ;;
  context) say "the cluster of context '$(cat "$STATE/context")' is not ours, and stays" ;;
  *) node_clean ;;
  esac
  rm -rf "$STATE"/{kind,context,kubeconfig,images}
  rmdir "$STATE" 2>/dev/null || true
  say "no cluster is up any more (${SECONDS}s)"
}

main "$@"
exit
