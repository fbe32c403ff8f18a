#!/usr/bin/env bash
# Builds an image of the tests without a container engine, and loads it into the cluster that is up.
#   images.sh hebb BINARY [TAG]     localhost/hebb/hebb:TAG (dev) from a static binary
#   images.sh redis | tools         localhost/hebb/redis:7.0, localhost/hebb/tools:1 (busybox)
#   images.sh pause | coredns | local-path-provisioner      what the single node itself needs
#   images.sh metrics-server | cert-manager-{controller,webhook,cainjector}      localhost/hebb/NAME:1, built from the modules
#                                   in optional/ (some minutes the first time)
# With --no-load first it only writes the archive. Prints the image's name.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/oci.sh"

REGISTRY=localhost/hebb
ROOT=

# A user's id without a name puzzles some programs.
add_users() {
  mkdir -p "$ROOT/etc"
  printf 'root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n' >"$ROOT/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$ROOT/etc/group"
}

add_certificates() {
  local bundle=/etc/ssl/certs/ca-certificates.crt
  [[ -r $bundle ]] || return 0
  install -Dm644 "$bundle" "$ROOT$bundle"
}

require_static() {
  [[ -x $1 ]] || die "no program at '$1'"
  # A static program that can be placed anywhere is fine for ldd as well, but names no library.
  if ldd "$1" 2>/dev/null | grep -qF .so; then die "$1 is not linked statically: it can't run in an empty image"; fi
}

# static_image NAME BINARY [CALLED]: an image of one static program, run as a user of no rights.
static_image() {
  local program=${3:-${2##*/}}
  require_static "$2"
  add_users
  install -m755 "$2" "$ROOT/$program"
  write_image "$1" "$ROOT" "\"User\":\"65532:65532\",\"WorkingDir\":\"/\",\"Entrypoint\":[\"/$program\"]" >/dev/null
}

hebb_image() {
  [[ -n ${1:-} ]] || die "usage: images.sh hebb BINARY [TAG]"
  NAME=$REGISTRY/hebb:${2:-dev}
  add_certificates
  static_image "$NAME" "$1" hebb
}

# Debian's Redis with the libraries that it names, and those that the C library opens by itself to look names up.
redis_image() {
  local library
  NAME=$REGISTRY/redis:7.0
  "$CLUSTER_DIR/packages.sh" redis
  mkdir -p "$ROOT/usr/bin" "$ROOT/data" "$ROOT/tmp"
  chmod 1777 "$ROOT/data" "$ROOT/tmp"
  install -m755 "$(readlink -f "$(command -v redis-check-rdb)")" "$ROOT/usr/bin/redis-server"
  install -m755 "$(readlink -f "$(command -v redis-cli)")" "$ROOT/usr/bin/redis-cli"
  while read -r library; do
    [[ ! -e $library ]] || install -Dm755 "$library" "$ROOT$library"
  done < <(libraries "$ROOT/usr/bin/redis-server" "$ROOT/usr/bin/redis-cli")
  add_users
  printf 'redis:x:999:999:redis:/data:/\n' >>"$ROOT/etc/passwd"
  printf 'redis:x:999:\n' >>"$ROOT/etc/group"
  printf 'hosts: files dns\n' >"$ROOT/etc/nsswitch.conf"
  write_image "$NAME" "$ROOT" '"User":"999:999","WorkingDir":"/data","Env":["PATH=/usr/bin"],"Cmd":["redis-server"]' >/dev/null
}

libraries() {
  ldd "$@" | grep -o '/[^ :]*\.so[^ :]*' | sort -u
  local libc
  libc=$(ldd "$1" | grep -o '/[^ ]*/libc\.so\.6')
  printf '%s\n' "${libc%/*}"/{libnss_dns.so.2,libnss_files.so.2,libresolv.so.2}
}

tools_image() {
  local applet
  NAME=$REGISTRY/tools:1
  "$CLUSTER_DIR/packages.sh" tools
  mkdir -p "$ROOT/bin" "$ROOT/tmp"
  chmod 1777 "$ROOT/tmp"
  install -m755 /bin/busybox "$ROOT/bin/busybox"
  for applet in $(busybox --list); do
    [[ $applet == busybox ]] || ln -s busybox "$ROOT/bin/$applet"
  done
  add_users
  write_image "$NAME" "$ROOT" '"User":"65532:65532","WorkingDir":"/","Env":["PATH=/bin"],"Cmd":["sh"]' >/dev/null
}

pause_image() {
  NAME=$REGISTRY/pause:1
  local program
  program=$(bin_dir)/pause
  if [[ ! -x $program || $CLUSTER_DIR/images/pause.go -nt $program ]]; then
    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$program.$$" "$CLUSTER_DIR/images/pause.go"
    mv "$program.$$" "$program"
  fi
  static_image "$NAME" "$program"
}

# optional_image NAME MODULE PACKAGE: an image of one program of a module in optional/, which is built when it is first wanted.
optional_image() {
  NAME=$REGISTRY/$1:1
  local program module=$CLUSTER_DIR/optional/$2
  program=$(bin_dir)/$1
  if [[ ! -x $program || $module/go.mod -nt $program ]]; then
    step "building $1 (some minutes on two cores the first time, then cached)"
    (cd "$module" &&
      CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' nice go build -trimpath -ldflags '-s -w' \
        -o "$program.$$" "$3")
    mv "$program.$$" "$program"
  fi
  static_image "$NAME" "$program"
}

built_image() {
  NAME=$REGISTRY/$1:1
  static_image "$NAME" "$(bin_dir)/$1"
}

main() {
  local load=yes
  if [[ ${1:-} == --no-load ]]; then
    load=no
    shift
  fi
  ROOT=$(mktemp -d)
  trap 'rm -rf "$ROOT"' EXIT
  # An image's folders are open to every user, whatever mktemp gave this one.
  chmod 755 "$ROOT"
  umask 022
  case ${1:-} in
  hebb) hebb_image "${2:-}" "${3:-}" ;;
  redis | tools | pause) "$1_image" ;;
  coredns | local-path-provisioner) built_image "$1" ;;
  metrics-server) optional_image "$1" metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server ;;
  cert-manager-*) optional_image "$1" cert-manager "github.com/cert-manager/cert-manager/cmd/${1#cert-manager-}" ;;
  *) die "usage: images.sh [--no-load] hebb BINARY [TAG] | NAME, as the head of this file lists them" ;;
  esac
  [[ $load == no ]] || load_image "$NAME"
  printf '%s\n' "$NAME"
}

main "$@"
