# shellcheck shell=bash
# Starts and ends background processes by pid files in $D/run; their output goes to $D/log. To be sourced after lib.sh.
# A pid file also holds the process's start time: a number that the system gave to another program since then is not ours.

# A process that has ended counts as gone, even if nobody has asked for its exit code yet.
start_time() { awk '{sub(/.*\) /, "")} $1 != "Z" {print $20}' "/proc/$1/stat" 2>/dev/null; }

alive() {
  local pid began
  read -r pid began 2>/dev/null <"$D/run/$1.pid" || return 1
  [[ -n $began && $(start_time "$pid") == "$began" ]]
}

# start NAME COMMAND…: in a session of its own, so that the end of the caller's terminal does not end it.
start() {
  local name=$1 pid
  shift
  mkdir -p "$D/run" "$D/log"
  # Fd 9 is the caller's lock, which must not outlive the caller.
  setsid "$@" >"$D/log/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$D/run/$name.pid"
}

# stop NAME [SIGNAL]: asks first, insists after three seconds.
stop() {
  local pid
  if alive "$1"; then
    read -r pid _ <"$D/run/$1.pid"
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in {1..30}; do
      alive "$1" || break
      sleep 0.1
    done
    if alive "$1"; then kill -KILL "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$D/run/$1.pid"
}

last_words() {
  say "the last lines of $D/log/$1.log:"
  tail -n 8 "$D/log/$1.log" >&2 || true
}
