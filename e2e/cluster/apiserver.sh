# shellcheck shell=bash disable=SC2034,SC2054
# The flags of etcd and kube-apiserver that the single node and the bare control plane share. To be sourced after lib.sh.

# etcd_flags CLIENT-PORT PEER-PORT. Nothing in a test cluster needs to survive a power cut, so it need not wait for the disk.
etcd_flags() {
  ETCD_FLAGS=(
    --data-dir "$D/etcd" --unsafe-no-fsync --log-level warn
    --listen-client-urls "http://127.0.0.1:$1" --advertise-client-urls "http://127.0.0.1:$1"
    --listen-peer-urls "http://127.0.0.1:$2" --initial-advertise-peer-urls "http://127.0.0.1:$2"
    --initial-cluster "default=http://127.0.0.1:$2"
  )
}

# apiserver_flags ETCD-PORT PORT. Pod Security and ServiceAccount admission are on by default.
apiserver_flags() {
  local pki=$D/pki
  APISERVER_FLAGS=(
    --etcd-servers="http://127.0.0.1:$1" --secure-port="$2" --service-cluster-ip-range=10.96.0.0/16
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt"
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
    --service-account-issuer=https://kubernetes.default.svc
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
    --audit-policy-file="$CLUSTER_DIR/audit-policy.yaml" --audit-log-path="$D/audit/audit.log"
    --audit-log-maxsize=200 --audit-log-maxbackup=1
  )
  mkdir -p "$D/audit"
}
