#!/usr/bin/env bash
# Prints the path of a Python with the peers of `make bench-runtime`; installs them from PyPI, once.
set -euo pipefail
cd "$(dirname "$0")"
cache=${HEBB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hebb}/bench-runtime
stamp=$cache/$(sha256sum requirements.txt | cut -c1-16)
if [[ ! -e $stamp ]]; then
  echo "==> installing Ray and Celery from PyPI, some minutes once" >&2
  rm -rf "$cache"
  python3 -m venv "$cache/venv" >&2
  "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.txt >&2
  touch "$stamp"
fi
echo "$cache/venv/bin/python"
