#!/usr/bin/env bash
# What launch/tpu_vm.sh calls on every worker of a TPU; works over plain ssh as well.
#   tpu_worker.sh setup                     environment with JAX for TPU, gcsfuse
#   tpu_worker.sh start WORKDIR ARGUMENT... train in the background (arguments of launch/train.py)
#   tpu_worker.sh train WORKDIR ARGUMENT... the same in the foreground
#   tpu_worker.sh status                    one line: FLOWSR ready | running | exited N, host
#   tpu_worker.sh logs [FLAGS OF tail]
#   tpu_worker.sh stop                      SIGTERM: all workers save after the same step and leave
# gs://BUCKET/PATH in WORKDIR and in arguments becomes ~/gcs/BUCKET/PATH, with the bucket mounted.
# The state of the run lies in ~/flowsr_run: log, pid, child (pid of the training),
# status (exit status, once it has ended).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$HOME/flowsr_run
export VENV=$HOME/.venv-flowsr

die() {
  echo "error: $(hostname): $*" >&2
  exit 1
}

running() { # the number in pid could be another process by now: look at its command
  [ -e "$state/pid" ] && [ ! -e "$state/status" ] &&
    grep -qs tpu_worker "/proc/$(cat "$state/pid")/cmdline"
}

find_python() { # prints an interpreter that launch/env.sh can use; fetches one with uv if need be
  local python check='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
  for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$python" > /dev/null && "$python" -c "$check" 2> /dev/null; then
      command -v "$python"
      return
    fi
  done
  echo "no Python 3.11 or newer here: fetching one with uv" >&2
  curl -LsSf https://astral.sh/uv/install.sh | sh >&2
  "$HOME/.local/bin/uv" python install 3.11 >&2
  "$HOME/.local/bin/uv" python find 3.11
}

install_gcsfuse() { # as in the guide of Cloud Storage FUSE
  command -v gcsfuse > /dev/null && return
  local keys=/usr/share/keyrings/cloud.google.asc site=https://packages.cloud.google.com/apt
  curl -fsS "$site/doc/apt-key.gpg" | sudo tee "$keys" > /dev/null
  echo "deb [signed-by=$keys] $site gcsfuse-$(lsb_release -c -s) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
  # A VM that has just booted updates itself and holds apt's lock.
  sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq gcsfuse
}

mount_bucket() {
  local folder=$HOME/gcs/$1
  mountpoint -q "$folder" && return
  mkdir -p "$folder"
  # No cached metadata: a worker must see at once what another one has written.  orbax
  # renames the folder of a finished checkpoint, which gcsfuse refuses without a limit.
  gcsfuse --implicit-dirs --rename-dir-limit=1000000 \
    --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$1" "$folder" >&2
}

localise() { # puts the words, with local folders for buckets, which it mounts, into `localised`
  local word rest
  localised=()
  for word in "$@"; do
    rest=$word
    while [[ "$rest" =~ gs://([^/]+) ]]; do # a tuple of folders may name several
      mount_bucket "${BASH_REMATCH[1]}"
      rest=${rest#*gs://}
    done
    localised+=("${word//gs:\/\//$HOME/gcs/}")
  done
}

setup() {
  if running; then die "a run is in progress (pid $(cat "$state/pid")); stop it first"; fi
  cd "$here/.."
  PYTHON=$(find_python)
  export PYTHON
  # shellcheck source=launch/env.sh
  source launch/env.sh
  make_env requirements.txt
  python -m pip install --quiet --disable-pip-version-check -c requirements.txt "jax[tpu]"
  install_gcsfuse
  mkdir -p "$state"
  touch "$state/ready"
  echo "set up: $(hostname)"
}

check_start() {
  [ $# -ge 2 ] || die "needs a workdir and the arguments of launch/train.py"
  [ -e "$state/ready" ] || die "not set up: run setup first"
  if running; then die "a run is in progress (pid $(cat "$state/pid")); stop it first"; fi
}

start() {
  check_start "$@"
  localise "$@" # here, so that the caller sees the errors
  rm -f "$state/status"
  # A session of its own: it outlives the ssh connection.
  nohup setsid bash "$here/tpu_worker.sh" background "${localised[@]}" \
    >> "$state/log" 2>&1 < /dev/null &
  echo $! > "$state/pid"
  echo "started: $(hostname), pid $!"
}

background() {
  local workdir=$1 status=0 child
  trap : TERM # a machine that shuts down signals all processes; the training sees to it
  train_here "$@" &
  child=$!
  echo "$child" > "$state/child"
  wait "$child" || status=$?
  while kill -0 "$child" 2> /dev/null; do # a signal ends `wait`, not the child
    status=0
    wait "$child" || status=$?
  done
  echo "== $(date -u +%FT%TZ) $(hostname): exit status $status"
  # The VM may be gone soon: keep the log with the run.
  { mkdir -p "$workdir/logs" && cp "$state/log" "$workdir/logs/$(hostname).log"; } || true
  echo "$status" > "$state/status"
}

train_here() {
  local workdir=$1
  shift
  cd "$here/.."
  echo "== $(date -u +%FT%TZ) $(hostname): launch/train.py --workdir=$workdir $*"
  exec "$VENV/bin/python" -u launch/train.py --distributed "--workdir=$workdir" "$@"
}

train() {
  check_start "$@"
  localise "$@"
  train_here "${localised[@]}"
}

status() {
  local now=absent
  if running; then
    now="running"
  elif [ -e "$state/status" ]; then
    now="exited $(cat "$state/status")"
  elif [ -e "$state/pid" ]; then
    now="exited 137" # killed, with what was to write the status
  elif [ -e "$state/ready" ]; then
    now="ready"
  fi
  echo "FLOWSR $now $(hostname)"
}

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
  setup | start | train | background | status) "$command" "$@" ;;
  logs) exec tail "$@" "$state/log" ;;
  stop)
    running || die "no run is in progress"
    kill -TERM "$(cat "$state/child")"
    ;;
  *) die "unknown command '$command': setup, start, train, status, logs or stop" ;;
esac
