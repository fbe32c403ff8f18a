#!/usr/bin/env bash
# Installs the operator of this tree on the cluster of e2e/cluster/up.sh: loads the image, then helm.
#   install.sh BINARY
# An image can't be loaded into a foreign cluster (CLUSTER=context): name one that it can pull by HEBB_IMAGE=repository:tag,
# and by HEBB_REDIS_IMAGE a Redis, where it can't pull the chart's default.
set -euo pipefail
binary=$1
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/e2e/cluster/env.sh"
image=(--set redis.image=localhost/hebb/redis:7.0)
if [[ -n ${HEBB_IMAGE:-} ]]; then
  image=(--set image.repository="${HEBB_IMAGE%:*}" --set image.tag="${HEBB_IMAGE##*:}")
  [[ -z ${HEBB_REDIS_IMAGE:-} ]] || image+=(--set redis.image="$HEBB_REDIS_IMAGE")
else
  # A tag by content: a changed binary is a changed Deployment.
  tag=dev-$(sha256sum "$binary" | cut -c1-12)
  "$root/e2e/cluster/images.sh" hebb "$binary" "$tag"
  image+=(--set image.repository=localhost/hebb/hebb --set image.tag="$tag")
fi
# Where the tests listen for alerts: the node itself; over TLS with the API server's certificate.
if [[ $HEBB_CLUSTER == local ]]; then
  image+=(--set receiverCA.name=kube-root-ca.crt)
  image+=(--set "receivers.nets={$($HEBB_IN_NODE "$(type -P kubectl)" get node -o jsonpath='{.items[0].status.addresses[0].address}')}")
fi
kubectl() { $HEBB_IN_NODE "$(type -P kubectl)" "$@"; }
kubectl get namespace hebb-system >/dev/null 2>&1 || kubectl create namespace hebb-system
kubectl label --overwrite namespace hebb-system pod-security.kubernetes.io/enforce=restricted >/dev/null
echo "==> installing the operator"
# One operator: the tests read its log and restart it.
image+=(--set replicas=1)
$HEBB_IN_NODE helm upgrade --install hebb "$root/charts/hebb" --namespace hebb-system --wait --timeout 120s "${image[@]}" >/dev/null
kubectl -n hebb-system get deployments
