# shellcheck shell=bash
# Certificates and kubeconfigs in $D/pki, for both the single node and the bare control plane. To be sourced after lib.sh.

EC=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

create_authority() {
  mkdir -p "$D/pki"
  chmod 700 "$D/pki"
  openssl req -x509 "${EC[@]}" -keyout "$D/pki/ca.key" -out "$D/pki/ca.crt" -days 3650 -subj /CN=hebb-test-ca 2>/dev/null
  openssl genrsa -out "$D/pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$D/pki/sa.key" -pubout -out "$D/pki/sa.pub" 2>/dev/null
}

# issue NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
issue() {
  local file=$D/pki/$1
  openssl req "${EC[@]}" -keyout "$file.key" -out "$file.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$file.csr" -CA "$D/pki/ca.crt" -CAkey "$D/pki/ca.key" -CAcreateserial -days 3650 -out "$file.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${3:-DNS:localhost}") 2>/dev/null
  rm -f "$file.csr"
}

one_line() { base64 <"$1" | tr -d '\n'; }

# write_kubeconfig NAME SERVER FILE: for the certificate NAME.
write_kubeconfig() {
  (
    umask 077
    cat >"$3.$$" <<Y
apiVersion: v1
kind: Config
current-context: hebb
contexts: [{name: hebb, context: {cluster: hebb, user: $1}}]
clusters: [{name: hebb, cluster: {server: "$2", certificate-authority-data: $(one_line "$D/pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(one_line "$D/pki/$1.crt"), client-key-data: $(one_line "$D/pki/$1.key")}}]
Y
  )
  mv "$3.$$" "$3"
}
