#!/usr/bin/env bash
# Train on a Cloud TPU slice of one or many hosts, spot or not; needs bash, tar and gcloud.
set -euo pipefail

usage() {
  cat << 'EOF'
bash launch/tpu_vm.sh COMMAND [FLAG...] [-- ARGUMENT of launch/train.py...]

  create   request the TPU (a queued resource with one node of the same name)
  setup    copy the code to all workers and install
  run      start the training on all workers, in the background; again: resume
  status   state of the request, and of the run on every worker (with its exit status)
  logs     log of a worker
  stop     save a checkpoint and end the run
  watch    all of the above until the run has ended: waits, creates, sets up, runs, and does it
           again after each preemption; then deletes the TPU
  delete   delete the TPU and the request

Flags (or environment variables):
  --name NAME               (TPU_NAME)      name of the TPU; all commands
  --zone ZONE               (TPU_ZONE)      all commands
  --project PROJECT         (TPU_PROJECT)   default: that of gcloud
  --type TYPE               (TPU_TYPE)      accelerator, e.g. v5litepod-16; create, watch
  --runtime-version VERSION (TPU_RUNTIME)   default: by the type
  --spot                    (TPU_SPOT=1)    spot capacity
  --workdir gs://BUCKET/RUN (TPU_WORKDIR)   folder of the run; run, watch
  --config FILE[:VARIANT]   (TPU_CONFIG)    e.g. configs/srflow_div2k.py; run, watch
  --repo URL --ref REF      (TPU_REPO, TPU_REF)  clone this on the workers (default: this folder)
  --worker N                for logs, default 0
  --lines N, --follow       for logs, default 100 lines
  --poll SECONDS            for watch, default 60
  --retries N               for watch: new starts after a failure that is no preemption, default 3
  --keep                    for watch: do not delete the TPU in the end
  --dry-run                 print all commands and run none

Example: bash launch/tpu_vm.sh watch --name sr --zone us-west4-a --type v5litepod-16 --spot \
    --workdir gs://my-bucket/runs/srflow --config configs/srflow_div2k.py \
    -- --config.data.train_dir=gs://my-bucket/train --config.data.valid_dir=gs://my-bucket/valid
EOF
}

die() {
  echo "error: $*" >&2
  exit 2
}

quote() { # prints the words so that a shell reads them back
  local word words=()
  for word in "$@"; do
    if [[ ! "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then word="'${word//\'/\'\\\'\'}'"; fi
    words+=("$word")
  done
  echo "${words[*]}"
}

call() { # runs or, with --dry-run, prints a command
  if [ "$dry_run" = 1 ]; then quote "$@"; else "$@"; fi
}

say() {
  if [ "$dry_run" = 1 ]; then echo "# $*"; else echo "$(date +%T) $*"; fi
}

on_workers() { # on_workers WHICH SHELL_COMMAND
  call gcloud compute tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2" "${where[@]}" --quiet
}

request() { # request VERB [FLAG...], of the queued resource
  call gcloud compute tpus queued-resources "$1" "$name" "${@:2}" "${where[@]}"
}

runtime_of() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) die "no runtime version is known for --type $1: give --runtime-version" ;;
  esac
}

create() {
  local flags=("--node-id=$name" "--accelerator-type=$type" "--runtime-version=$runtime")
  if [ "$spot" = 1 ]; then flags+=(--spot); fi
  request create "${flags[@]}" --quiet
}

delete() { request delete --force --quiet; }

setup() {
  local tar="${TMPDIR:-/tmp}/flowsr_jax-$name.tgz" unpack
  if [ -n "$repo" ]; then
    unpack="$(quote git clone --quiet "$repo" flowsr_jax)"
    if [ -n "$ref" ]; then unpack+=" && $(quote git -C flowsr_jax checkout --quiet "$ref")"; fi
  else
    call tar -czf "$tar" --exclude=./.git --exclude=./.venv --exclude=./.cache --exclude=./data \
      --exclude=./runs --exclude=__pycache__ -C "$root" . || return
    call gcloud compute tpus tpu-vm scp "$tar" "$name:flowsr_jax.tgz" --worker=all \
      "${where[@]}" --quiet || return
    unpack="mkdir flowsr_jax && tar -xzf flowsr_jax.tgz -C flowsr_jax"
  fi
  on_workers all "if $worker_sh status 2>/dev/null | grep running; then exit 1; fi; \
rm -rf flowsr_jax && $unpack && $worker_sh setup"
}

run() { on_workers all "$worker_sh start $(quote "$workdir" "$@")"; }

worker_status() {
  on_workers all "$worker_sh status 2>/dev/null || echo FLOWSR absent"
}

request_state() { # NONE if there is no such request; fails on other errors
  local found
  if found=$(request describe "--format=value(state.state)" 2>&1); then
    echo "${found##*$'\n'}"
  elif [[ "$found" == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo "$found" >&2
    return 1
  fi
}

start_again() { # start_again ARGUMENT...; uses up one of `starts_left`
  if [ "$starts_left" -le 0 ]; then
    die "the run fails, see logs. The TPU is still there and costs money (delete)"
  fi
  starts_left=$((starts_left - 1))
  say "starting the run"
  run "$@" || say "it did not start everywhere, see above"
}

watch() {
  local state found other node before='' failures=0 starts_left=$((retries + 1))
  while true; do
    if state=$(request_state); then
      failures=0
    else
      failures=$((failures + 1)) state=UNKNOWN
      if [ "$failures" -ge 5 ]; then die "gcloud failed $failures times in a row, see above"; fi
    fi
    if [ "$state" != "$before" ]; then say "$name is $state"; fi
    before=$state
    if [ "$state" = ACTIVE ]; then
      if ! found=$(worker_status 2>&1); then
        say "its workers do not answer: $(tail -n 1 <<< "$found")"
        node=$(gcloud compute tpus tpu-vm describe "$name" "--format=value(state)" "${where[@]}") ||
          node=UNKNOWN
        case "$node" in PREEMPTED | TERMINATED | STOPPED) state=SUSPENDED ;; esac
      elif grep -q 'FLOWSR absent' <<< "$found"; then
        say "setting up"
        setup || say "the setup failed, see above"
      elif grep -q 'FLOWSR running' <<< "$found"; then
        : # one that has ended alone takes the others with it
      elif other=$(grep 'FLOWSR' <<< "$found" | grep -v 'FLOWSR exited 0 '); then
        grep 'FLOWSR exited' <<< "$other" || true
        start_again "$@"
      elif grep -q 'FLOWSR exited 0 ' <<< "$found"; then
        say "the run has ended; its results are in $workdir"
        if [ "$keep" = 0 ]; then delete; fi
        return
      fi
    fi
    case "$state" in
      NONE) create || say "it could not be requested, see above" ;;
      SUSPENDED | FAILED)
        say "it is gone: deleting it; a new one is requested next"
        delete || true
        starts_left=$((retries + 1))
        ;;
    esac
    sleep "$poll"
  done
}

watch_dry() {
  say "every $poll s:"
  request describe "--format=value(state.state)"
  say "NONE (no such request):"
  create
  say "ACTIVE:"
  worker_status
  say "a worker is absent (not set up):"
  setup
  say "all are ready, or the run failed (at most $retries times):"
  run "$@"
  say "SUSPENDED or FAILED, as after a preemption; then all from the start:"
  delete
  if [ "$keep" = 0 ]; then
    say "exited 0 on all workers:"
    delete
  fi
}

worker_sh="bash flowsr_jax/launch/tpu_worker.sh"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${TPU_NAME:-} zone=${TPU_ZONE:-} project=${TPU_PROJECT:-} type=${TPU_TYPE:-}
runtime=${TPU_RUNTIME:-} spot=${TPU_SPOT:-0} workdir=${TPU_WORKDIR:-} config=${TPU_CONFIG:-}
repo=${TPU_REPO:-} ref=${TPU_REF:-}
worker=0 lines=100 follow=0 poll=60 retries=3 keep=0 dry_run=0

[ $# -gt 0 ] || { usage >&2 && exit 2; }
command=$1
shift
case "$command" in
  create | setup | run | status | logs | stop | watch | delete) ;;
  help | -h | --help) usage && exit ;;
  *) die "unknown command '$command': create, setup, run, status, logs, stop, watch or delete" ;;
esac
while [ $# -gt 0 ]; do
  flag=$1
  shift
  value=''
  case "$flag" in
    --) break ;;
    --spot | --follow | --keep | --dry-run) ;;
    --*=*)
      value=${flag#*=}
      flag=${flag%%=*}
      ;;
    --*)
      [ $# -gt 0 ] || die "$flag needs a value"
      value=$1
      shift
      ;;
    *) die "unknown argument '$flag'; those of launch/train.py come after --" ;;
  esac
  case "$flag" in
    --name) name=$value ;;
    --zone) zone=$value ;;
    --project) project=$value ;;
    --type) type=$value ;;
    --runtime-version) runtime=$value ;;
    --spot) spot=1 ;;
    --workdir) workdir=$value ;;
    --config) config=$value ;;
    --repo) repo=$value ;;
    --ref) ref=$value ;;
    --worker) worker=$value ;;
    --lines) lines=$value ;;
    --follow) follow=1 ;;
    --poll) poll=$value ;;
    --retries) retries=$value ;;
    --keep) keep=1 ;;
    --dry-run) dry_run=1 ;;
    *) die "unknown flag $flag; those of launch/train.py come after --" ;;
  esac
done

[ -n "$name" ] || die "$command needs --name (or TPU_NAME)"
[[ "$name" =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  die "--name '$name': small letters, digits and hyphens only, a letter first"
[ -n "$zone" ] || die "$command needs --zone (or TPU_ZONE)"
for number in "worker $worker" "lines $lines" "poll $poll" "retries $retries"; do
  [[ "$number" =~ ^[a-z]+\ [0-9]+$ ]] || die "--${number/ / \'}' is no number"
done
[ -z "$ref" ] || [ -n "$repo" ] || die "--ref needs --repo"
if [[ "$command" =~ ^(create|watch)$ ]]; then
  [ -n "$type" ] || die "$command needs --type (or TPU_TYPE), e.g. v5litepod-16"
  if [ -z "$runtime" ]; then runtime=$(runtime_of "$type"); fi
fi
if [[ "$command" =~ ^(run|watch)$ ]]; then
  [ -n "$config" ] || die "$command needs --config (or TPU_CONFIG), e.g. configs/srflow_div2k.py"
  [[ "$workdir" =~ ^(gs://[^/]+/.|/.) ]] ||
    die "$command needs --workdir gs://BUCKET/FOLDER (or TPU_WORKDIR), got '$workdir'"
  set -- "--config=$config" "$@"
elif [ $# -gt 0 ]; then
  die "$command takes no arguments of launch/train.py"
fi
if [ "$dry_run" = 0 ] && ! command -v gcloud > /dev/null; then
  die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
fi
where=("--zone=$zone")
if [ -n "$project" ]; then where+=("--project=$project"); fi

case "$command" in
  run | create | setup | delete) "$command" "$@" ;;
  status)
    request describe "--format=value(state.state)"
    worker_status
    ;;
  logs)
    tail_flags=(-n "$lines")
    if [ "$follow" = 1 ]; then tail_flags+=(-F); fi
    on_workers "$worker" "$worker_sh logs ${tail_flags[*]}"
    ;;
  stop) on_workers 0 "$worker_sh stop" ;;
  watch) if [ "$dry_run" = 1 ]; then watch_dry "$@"; else watch "$@"; fi ;;
esac
