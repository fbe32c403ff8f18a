#!/usr/bin/env bash
# `hebb top` as a user meets it: in a terminal (tmux) over a live `hebb start`, key by key.
#   top.sh HEBB_BINARY
set -euo pipefail
hebb=$(realpath "$1")
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
data=$(mktemp -d)
socket=hebb-top-$$
base=$((20000 + $$ % 10000))
url=http://127.0.0.1:$((base + 1))

LOG_LEVEL=warn "$hebb" start -f "$here/cluster.yaml" --data-dir "$data" --port "$base" --coordinator-port $((base + 1)) \
  --worker-port $((base + 2)) &
server=$!
cleanup() {
  tmux -L "$socket" kill-server 2>/dev/null || true
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$data"
}
trap cleanup EXIT

screen() { tmux -L "$socket" capture-pane -p -t top; }
# The screen shows a text within some seconds, or the test fails with what it shows.
sees() {
  local end=$((SECONDS + ${2:-10}))
  until screen | grep -qE -- "$1"; do
    ((SECONDS < end)) || { printf 'never on the screen: %s\n' "$1" >&2; screen >&2; exit 1; }
    sleep 0.2
  done
}
press() { tmux -L "$socket" send-keys -t top "$@"; }

for _ in {1..100}; do
  "$hebb" top --url "$url" --summary >/dev/null 2>&1 && break
  sleep 0.2
done
node "$here/feed.mjs" "http://127.0.0.1:$base" 14 700 >/dev/null
sleep 3

summary=$("$hebb" top --url "$url" --summary)
events=$(node -p 'const s = JSON.parse(process.argv[1]); if (s.partitions !== 11 || s.unowned !== 0 || s.domains.length !== 5) throw s; s.domains[2].events' "$summary")
if "$hebb" top --url http://127.0.0.1:1 --summary 2>/dev/null; then echo "a coordinator that isn't there was summarised" >&2; exit 1; fi

tmux -L "$socket" -f /dev/null new-session -d -s top -x 140 -y 36 "$hebb top --url $url --refresh 1"
sees 'DOMAIN +TASK +QUALITY'
sees "sensors +classes +[0-9.]+ % +[▁▂▃▄▅▆▇█]+ .* $events "
sees 'gestures +signals +[0-9.]+ %'
sees 'partitions 11/11'
# A narrow terminal has fewer columns and cuts no value.
tmux -L "$socket" resize-window -t top -x 80 -y 24
sees 'p99 [0-9.]+ [mµ]s +restarts [0-9]+'
sees 'term [0-9]{13}'
tmux -L "$socket" resize-window -t top -x 140 -y 36
press s
sees 'sort \(lag\)'
press s s s s
sees 'sort \(name\)'
press Down Down Enter
sees 'recent accuracy over the last hour'
sees 'PARTITION +OWNER'
press Escape
sees 'DOMAIN +TASK'
press Tab
sees 'NODE +ROLE +MEMORY'
sees 'local +worker'
kill "$server"
wait "$server" || true
sees 'no coordinator answers' 15
press q
for _ in {1..50}; do
  tmux -L "$socket" has-session -t top 2>/dev/null || { echo "hebb top: every key does what it should; $events events seen"; exit 0; }
  sleep 0.1
done
echo "q doesn't leave" >&2
exit 1
