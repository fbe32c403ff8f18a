#!/usr/bin/env bash
# Installs the Debian packages that the single node needs, only those that are missing, and starts none of their services.
#   packages.sh [control-plane|node|tools|redis|redis-server|alert|build|web|monitoring|emulation|bench]…    all by default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# COMMAND PACKAGE: a package is missing when its command is. A path stands for a file that is on nobody's PATH.
CONTROL_PLANE="
openssl openssl
flock util-linux"
NODE="
containerd containerd
runc runc
/usr/lib/cni/bridge containernetworking-plugins
nft nftables
conntrack conntrack
iptables iptables
socat socat
ethtool ethtool
openssl openssl
ip iproute2
nsenter util-linux"
TOOLS="
/bin/busybox busybox-static"
# redis-tools holds the server as well (redis-server is a link to redis-check-rdb): no service comes with it.
REDIS="
redis-check-rdb redis-tools"
# The tests of the log start servers of their own.
REDIS_SERVER="
redis-server redis-server"
# The tests of alerts send mail to a real server and ask Alertmanager how it would route.
ALERT="
aiosmtpd python3-aiosmtpd
amtool prometheus-alertmanager"
BUILD="
musl-gcc musl-tools"
# The tests of the dashboards.
WEB="
chromium chromium
chromedriver chromium-driver
node nodejs
tmux tmux"
# The tests of metrics, alert rules and dashboards.
MONITORING="
curl curl
jq jq"
# A binary for another architecture.
EMULATION="
curl curl
qemu-aarch64-static qemu-user-static"
# One of the peers that the engine is measured against is Java.
BENCH="
javac default-jdk-headless"

missing() {
  local command package
  while read -r command package; do
    [[ -z $command ]] || have "$command" || printf '%s\n' "$package"
  done
  # Another package's busybox may be linked dynamically, and no such one runs in an empty image.
  if [[ $1 == *busybox-static* && -x /bin/busybox ]] && ldd /bin/busybox 2>/dev/null | grep -qF .so; then
    echo busybox-static
  fi
}

# Debian's packages ask this program before they start a service; 101 is its way to say no.
POLICY=/usr/sbin/policy-rc.d
forbid_services() {
  [[ ! -e $POLICY ]] || return 0
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod +x "$POLICY"
  trap 'rm -f "$POLICY"' EXIT
}

install_packages() {
  local log
  have apt-get || die "please install: $* (no apt-get here)"
  ((EUID == 0)) || die "please install as root: apt-get install $*"
  step "installing Debian packages: $*"
  forbid_services
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1; then
    cat "$log" >&2
    die "could not install: $*"
  fi
  rm -f "$log"
}

main() {
  local wanted='' set packages
  (($#)) || set -- control-plane node tools redis
  for set in "$@"; do
    case $set in
    control-plane) wanted+=$CONTROL_PLANE ;;
    node) wanted+=$NODE ;;
    redis-server) wanted+=$REDIS_SERVER ;;
    alert) wanted+=$ALERT ;;
    build) wanted+=$BUILD ;;
    web) wanted+=$WEB ;;
    monitoring) wanted+=$MONITORING ;;
    bench) wanted+=$BENCH ;;
    emulation) wanted+=$EMULATION ;;
    tools) wanted+=$TOOLS ;;
    redis) wanted+=$REDIS ;;
    *) die "unknown set of packages '$set'" ;;
    esac
  done
  mapfile -t packages < <(missing "$wanted" <<<"$wanted" | sort -u)
  ((${#packages[@]} == 0)) || install_packages "${packages[@]}"
}

main "$@"
