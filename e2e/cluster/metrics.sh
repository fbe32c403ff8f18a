#!/usr/bin/env bash
# Gives the cluster that is up the figures that a HorizontalPodAutoscaler goes by, unless it has them. Idempotent.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/env.sh"

kube() { $HEBB_IN_NODE kubectl "$@"; }
served() { kube get --raw /apis/metrics.k8s.io/v1beta1/pods | grep -q usage; }

if ! served 2>/dev/null; then
  "$CLUSTER_DIR/images.sh" metrics-server >/dev/null
  step "installing metrics-server"
  kube apply --server-side --force-conflicts -f "$CLUSTER_DIR/optional/metrics-server.yaml" >/dev/null
  until_true 120 "metrics of pods" served
fi
