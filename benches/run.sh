#!/usr/bin/env bash
# The engine and its parts against their peers.
#   [NAB=CLONE] run.sh FOLDER_OF_BINARIES FOLDER_OF_RESULTS DATA [ARGUMENT_OF_ENGINE.PY…]
# DATA is a stream, a folder of streams, or empty for the stream of the demo. NAB is a clone of github.com/numenta/NAB or
# an archive of its data and labels; without it only the anomalies of the demo's stream are measured.
set -euo pipefail
binaries=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
data=$3
shift 3
here=$(dirname "$(realpath "$0")")
[[ -n $data ]] || data=$("$here/../e2e/data/fetch.sh")
venv=$("$here/setup.sh")
jars=("$venv"/lib/python3*/site-packages/capymoa/jar/moa.jar)
jar=${jars[0]}
mkdir -p "$out/moa"
if ! javac -cp "$jar" -d "$out/moa" "$here/Moa.java"; then
  echo "NOT MEASURED: MOA needs a Java development kit and $jar" >&2
fi
"$venv/bin/python" "$here/engine.py" --data "$data" --learner "$binaries/learner" --jar "$jar" --classes "$out/moa" \
  --out "$out/engine.json" "$@"
parts=()
for argument in "$@"; do [[ $argument == --quick ]] && parts=(--quick); done
"$venv/bin/python" "$here/parts.py" --parts "$binaries/parts" --out "$out" "${parts[@]}"
rows=$("$here/../e2e/data/fetch.sh")
"$venv/bin/python" "$here/anomaly.py" --parts "$binaries/parts" --rows "$rows" --out "$out" ${NAB:+--nab "$NAB"} "${parts[@]}"
[[ ${#parts[@]} -gt 0 ]] || "$venv/bin/python" "$here/patterns.py" --parts "$binaries/parts" --out "$out"
