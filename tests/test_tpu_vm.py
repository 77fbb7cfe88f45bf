"""launch/tpu_vm.sh against a gcloud that writes down its calls; the worker's side as it is."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
NAMED = ["--name=sr", "--zone", "us-west4-a"]
RUN = ["--workdir=gs://bucket/runs/x", "--config=configs/srflow_div2k.py"]
ON_ZONE = ["--zone=us-west4-a", "--quiet"]
WORKER = "bash flowsr_jax/launch/tpu_worker.sh"

# Every call is a line of words in calls.txt.  `describe` and the status of the workers take
# the next line of states.txt and workers.txt; a line "fail TEXT" is an error.
GCLOUD = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$FAKE/calls.txt"; echo >> "$FAKE/calls.txt"
next() {
  local line; line=$(head -n 1 "$FAKE/$1"); sed -i 1d "$FAKE/$1"
  case "$line" in fail*) echo "ERROR: ${line#fail }" >&2; exit 1 ;; esac
  echo "$line" | tr ';' '\\n'
}
case "$*" in
  *"queued-resources describe"*) next states.txt ;;
  *"tpu-vm describe"*) echo PREEMPTED ;;
  *"tpu_worker.sh status 2>/dev/null ||"*) next workers.txt ;;
esac
"""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def tpu_vm(tmp_path):
    """Run the script with the gcloud above; returns the finished process."""
    program(tmp_path / "bin", "gcloud", GCLOUD)
    program(tmp_path / "bin", "tar", "#!/bin/sh\n")
    program(tmp_path / "bin", "sleep", "#!/bin/sh\n")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TPU_")}

    def run(*arguments, states=(), workers=(), **environment):
        (tmp_path / "states.txt").write_text("".join(f"{s}\n" for s in states))
        (tmp_path / "workers.txt").write_text("".join(f"{w}\n" for w in workers))
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(ROOT / "launch/tpu_vm.sh"), *arguments],
            env={**inherited, "PATH": path, "FAKE": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def calls(tmp_path):
    """Return the words of all calls of gcloud."""

    def read():
        file = tmp_path / "calls.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [shlex.split(line) for line in lines]

    return read


def printed(process):
    assert process.returncode == 0, process.stderr
    return [shlex.split(line) for line in process.stdout.splitlines() if line[0] != "#"]


def remote(line):
    """Return the shell command of a call of ssh."""
    return next(w for w in line if w.startswith("--command="))[len("--command=") :]


def queued(verb, *flags):
    return ["gcloud", "compute", "tpus", "queued-resources", verb, "sr", *flags]


def ssh(worker, command):
    words = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "sr", f"--worker={worker}"]
    return [*words, f"--command={command}", ON_ZONE[0], ON_ZONE[1]]


CREATE = queued(
    "create", "--node-id=sr", "--accelerator-type=v5litepod-16",
    "--runtime-version=v2-alpha-tpuv5-lite", "--spot", "--quiet", ON_ZONE[0],
)  # fmt: skip
DELETE = queued("delete", "--force", "--quiet", ON_ZONE[0])
SPOT = ["--type=v5litepod-16", "--spot"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["create", *SPOT], [CREATE]),
        (["delete"], [DELETE]),
        (["run", *RUN], [ssh("all", f"{WORKER} start gs://bucket/runs/x {RUN[1]}")]),
        (["logs"], [ssh(0, f"{WORKER} logs -n 100")]),
        (["logs", "--worker=3", "--lines=5", "--follow"], [ssh(3, f"{WORKER} logs -n 5 -F")]),
        (["stop"], [ssh(0, f"{WORKER} stop")]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_dry_run_prints_the_commands(tpu_vm, calls, arguments, expected):
    assert printed(tpu_vm(*arguments, *NAMED, "--dry-run")) == expected
    assert calls() == []
    # Without --dry-run the same words reach gcloud.
    assert tpu_vm(*arguments, *NAMED).returncode == 0
    assert calls() == [line[1:] for line in expected]


def test_dry_run_of_status_and_watch(tpu_vm, calls):
    describe = queued("describe", "--format=value(state.state)", ON_ZONE[0])
    status = printed(tpu_vm("status", *NAMED, "--dry-run"))
    assert status[0] == describe and remote(status[1]).startswith(f"{WORKER} status")
    lines = printed(tpu_vm("watch", *NAMED, *SPOT, *RUN, "--dry-run"))
    kinds = [line[4] if line[0] == "gcloud" else line[0] for line in lines]
    assert kinds == ["describe", "create", "ssh", "tar", "scp", "ssh", "ssh", "delete", "delete"]
    assert CREATE in lines and DELETE in lines and calls() == []


def test_setup_copies_this_folder_or_clones(tpu_vm):
    tar, scp, ssh_line = printed(tpu_vm("setup", *NAMED, "--dry-run"))
    assert tar[0] == "tar" and tar[-3:] == ["-C", str(ROOT), "."]
    assert tar[2] == scp[5] and scp[6:8] == ["sr:flowsr_jax.tgz", "--worker=all"]
    assert remote(ssh_line).endswith(f"-C flowsr_jax && {WORKER} setup")
    repo = ["--repo=https://host/a b.git", "--ref=v1"]
    (ssh_line,) = printed(tpu_vm("setup", *NAMED, *repo, "--dry-run"))
    assert "git clone --quiet 'https://host/a b.git' flowsr_jax" in remote(ssh_line)
    assert "git -C flowsr_jax checkout --quiet v1" in remote(ssh_line)


def test_words_come_through_two_shells_as_they_are(tpu_vm):
    odd = ["--config.name=it's", "--config.x=(1, 2)", '--config.y=$HOME `id` "q" & ;*']
    (line,) = printed(tpu_vm("run", *NAMED, *RUN, "--dry-run", "--", *odd))
    assert shlex.split(remote(line))[-3:] == odd


def test_the_environment_gives_what_flags_do_not(tpu_vm):
    given = {
        "TPU_NAME": "sr", "TPU_ZONE": "us-west4-a", "TPU_TYPE": "v6e-8", "TPU_SPOT": "1",
        "TPU_PROJECT": "mine",
    }  # fmt: skip
    (line,) = printed(tpu_vm("create", "--dry-run", **given))
    assert {"--runtime-version=v2-alpha-tpuv6e", "--spot", "--project=mine"} <= set(line)
    (line,) = printed(tpu_vm("create", "--dry-run", "--runtime-version=other", **given))
    assert "--runtime-version=other" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["start"], "unknown command 'start'"),
        (["create", "--zone=z"], "create needs --name"),
        (["create", "--name=sr"], "create needs --zone"),
        (["create", *NAMED], "create needs --type"),
        (["create", *NAMED, "--type=v9-8"], "no runtime version is known for --type v9-8"),
        (["create", "--name=My_TPU", "--zone=z"], "--name 'My_TPU'"),
        (["create", *NAMED, "--typ=x"], "unknown flag --typ"),
        (["create", "--name"], "--name needs a value"),
        (["run", *NAMED, RUN[0]], "run needs --config"),
        (["run", *NAMED, RUN[1]], "run needs --workdir gs://BUCKET/FOLDER"),
        (["run", *NAMED, RUN[1], "--workdir=runs/x"], "got 'runs/x'"),
        (["watch", *NAMED, *RUN], "watch needs --type"),
        (["run", *NAMED, *RUN, "stray"], "unknown argument 'stray'"),
        (["logs", *NAMED, "--worker=all"], "--worker 'all' is no number"),
        (["setup", *NAMED, "--ref=main"], "--ref needs --repo"),
        (["delete", *NAMED, "--", "--config=x"], "delete takes no arguments"),
    ],
)
def test_mistakes_get_one_line(tpu_vm, calls, arguments, message):
    process = tpu_vm(*arguments)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("error: ") and message in process.stderr
    assert len(process.stderr.splitlines()) == 1 and calls() == []


def test_gcloud_must_be_there_unless_for_a_dry_run(tpu_vm, tmp_path):
    for name in ("bash", "dirname"):
        (tmp_path / "only").mkdir(exist_ok=True)
        (tmp_path / "only" / name).symlink_to(shutil.which(name))
    process = tpu_vm("delete", *NAMED, PATH=str(tmp_path / "only"))
    assert process.returncode == 2 and "gcloud is not installed" in process.stderr
    assert printed(tpu_vm("delete", *NAMED, "--dry-run", PATH=str(tmp_path / "only"))) == [DELETE]


def watched(tpu_vm, calls, states, workers, *flags):
    """Run watch; return the process and what it did, in short."""
    flags = (*NAMED, *SPOT, *RUN, *flags)
    process = tpu_vm("watch", *flags, states=states, workers=workers)
    done = []
    for line in calls():
        if line[3] == "ssh" and " status 2>/dev/null ||" not in remote(line):
            done.append(remote(line).split("tpu_worker.sh ")[-1].split()[0])
        elif line[3] in ("create", "delete"):
            done.append(line[3])
    return process, done


def test_watch_creates_runs_and_recreates_after_a_preemption(tpu_vm, calls):
    states = [
        "fail NOT_FOUND: no such thing", "WAITING_FOR_RESOURCES", "PROVISIONING",
        "ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED",
        "fail NOT_FOUND: no such thing", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE",
    ]  # fmt: skip
    absent, ready = "FLOWSR absent;FLOWSR absent", "FLOWSR ready a;FLOWSR ready b"
    busy = "FLOWSR running a;FLOWSR running b"
    over = "FLOWSR exited 0 a;FLOWSR exited 0 b"
    workers = [absent, ready, busy, absent, ready, busy, over]
    process, done = watched(tpu_vm, calls, states, workers)
    assert process.returncode == 0, process.stderr
    once = ["create", "setup", "start"]
    assert done == [*once, "delete", *once, "delete"]
    assert "results are in gs://bucket/runs/x" in process.stdout


def test_watch_notices_a_preempted_node_behind_an_active_request(tpu_vm, calls):
    process, done = watched(
        tpu_vm, calls, ["ACTIVE", "ACTIVE"], ["fail ssh: timed out", "FLOWSR exited 0 a"], "--keep"
    )
    assert process.returncode == 0 and done == ["delete"]


def test_watch_gives_up_on_a_run_that_fails(tpu_vm, calls):
    failed = "FLOWSR exited 134 a;FLOWSR exited 0 b"
    process, done = watched(tpu_vm, calls, ["ACTIVE"] * 4, [failed] * 4, "--retries=2")
    assert process.returncode == 2 and done == ["start"] * 3
    assert "the run fails, see logs" in process.stderr and "exited 134" in process.stdout


def test_watch_gives_up_when_gcloud_fails(tpu_vm, calls):
    process, done = watched(tpu_vm, calls, ["fail PERMISSION_DENIED: who are you"] * 5, [])
    assert process.returncode == 2 and done == []
    assert "PERMISSION_DENIED" in process.stderr and "5 times in a row" in process.stderr


@pytest.fixture
def worker(tmp_path):
    """Call the worker's script in a home of its own, with programs that only take notes."""
    home = tmp_path / "home"
    shutil.copytree(ROOT / "launch", home / "code" / "launch")
    program(tmp_path / "bin", "gcsfuse", '#!/bin/sh\necho "$@" > "$HOME/mounted.txt"\n')
    train = '#!/usr/bin/env bash\necho "$@"\n[ "$HOLD" = 0 ] && exit 3\n'
    train += "trap 'exit 143' TERM\nwhile :; do sleep 0.1; done\n"
    (home / ".venv-flowsr").mkdir()
    program(home / ".venv-flowsr" / "bin", "python", train)
    (home / "flowsr_run").mkdir()
    (home / "flowsr_run" / "ready").touch()

    def run(*arguments, hold=0):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "code/launch/tpu_worker.sh", *arguments],
            cwd=home,
            env={**os.environ, "HOME": str(home), "PATH": path, "HOLD": str(hold)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    run.home = home
    yield run
    run("stop")


def wait_for_status(worker, text):
    end = time.monotonic() + 60
    while text not in (now := worker("status").stdout):
        assert time.monotonic() < end, now
        time.sleep(0.1)


def test_a_worker_runs_in_the_background_and_keeps_the_exit_status(worker):
    assert worker("status").stdout.startswith("FLOWSR ready ")
    assert (
        worker(
            "start", "gs://bucket/run", "--config.d=('gs://bucket/d', 'gs://bucket/e')"
        ).returncode
        == 0
    )
    wait_for_status(worker, "FLOWSR exited 3 ")
    bucket = worker.home / "gcs" / "bucket"
    assert (worker.home / "mounted.txt").read_text().split()[-2:] == ["bucket", str(bucket)]
    log = worker("logs", "-n", "20").stdout
    command = f"-u launch/train.py --distributed --workdir={bucket}/run"
    command += f" --config.d=('{bucket}/d', '{bucket}/e')"
    assert command in log.splitlines() and "exit status 3" in log
    (copy,) = (bucket / "run" / "logs").iterdir()
    assert "exit status 3" in copy.read_text()


def test_a_worker_stops_by_sigterm_and_starts_again(worker):
    assert worker("start", "/shared/run", "--config=x", hold=1).returncode == 0
    wait_for_status(worker, "FLOWSR running ")
    for command in (["start", "/shared/run", "--config=x"], ["setup"]):
        process = worker(*command)
        assert process.returncode == 1 and "a run is in progress" in process.stderr
    while "\n-u launch/train.py" not in worker("logs").stdout:
        time.sleep(0.05)  # until the program runs that is to be stopped
    # A machine that shuts down signals all processes: the training must not get it twice.
    os.kill(int((worker.home / "flowsr_run" / "pid").read_text()), signal.SIGTERM)
    time.sleep(0.3)
    assert worker("status").stdout.startswith("FLOWSR running ")
    assert worker("stop").returncode == 0
    wait_for_status(worker, "FLOWSR exited 143 ")
    assert "no run is in progress" in worker("stop").stderr
    assert worker("start", "/shared/run", "--config=x").returncode == 0
    wait_for_status(worker, "FLOWSR exited 3 ")


def test_a_worker_must_be_set_up(worker):
    (worker.home / "flowsr_run" / "ready").unlink()
    assert "not set up" in worker("start", "/shared/run", "--config=x").stderr
    assert worker("status").stdout.startswith("FLOWSR absent ")
    assert "unknown command 'go'" in worker("go").stderr


def test_the_slurm_script_starts_one_command_and_requeues_after_sigterm(tmp_path):
    program(tmp_path / "bin", "srun", '#!/bin/sh\necho srun "$@"; exit $STATUS\n')
    program(tmp_path / "bin", "scontrol", '#!/bin/sh\necho scontrol "$@"\n')
    for status, again in ((0, False), (1, False), (143, True)):
        process = subprocess.run(
            ["bash", str(ROOT / "launch/slurm.sh"), "--config=x.py", "--config.name=a b"],
            env={
                "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "STATUS": str(status),
            },
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert process.returncode == status
        command = "python -u launch/train.py --distributed --config=x.py --config.name=a b"
        assert f"srun --kill-on-bad-exit=1 {command}" in process.stdout
        assert ("scontrol requeue 7" in process.stdout) == again


def test_the_skypilot_file_runs_the_worker_script():
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    assert task["resources"]["use_spot"] and task["resources"]["accelerators"].startswith("tpu-")
    assert task["setup"] == "bash launch/tpu_worker.sh setup"
    words = shlex.split(task["run"].replace("\\\n", " "))
    assert words[:4] == ["bash", "launch/tpu_worker.sh", "train", "$RUN"]
    used = {w.split("$")[1].split("/")[0] for w in words if "$" in w}
    assert used == set(task["envs"]) and (ROOT / task["envs"]["CONFIG"]).is_file()


@pytest.mark.parametrize("name", ["tpu_vm.sh", "tpu_worker.sh", "slurm.sh"])
def test_the_scripts_parse_and_pass_shellcheck_where_it_is_installed(name):
    file = str(ROOT / "launch" / name)
    assert subprocess.run(["bash", "-n", file]).returncode == 0
    if shutil.which("shellcheck"):
        command = ["shellcheck", "--external-sources", file]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
