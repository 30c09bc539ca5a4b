"""Tests the job scripts, on a real one-node Slurm: a pre-empted training resumes, and many tasks label a corpus."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference import beam_runner
from models import trained_model
from tests.inference.conftest import contents, write_corpus
from tests.tiny import tiny_model
from tests.training.conftest import base as base  # a fixture
from tests.training.conftest import toy_rows, write_rows
from tests.training.conftest import write_config as write_config  # a fixture

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "deploy" / "slurm" / "job.sbatch"
SGE = ROOT / "deploy" / "sge" / "job.sh"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run a cluster whose only node is this machine, and return its environment variables."""
    if not shutil.which("slurmctld") or not shutil.which("slurmd"):
        pytest.skip("Slurm is not installed (Debian: apt-get install slurm-wlm)")
    if os.geteuid() != 0:
        pytest.skip("slurmd runs as root only")
    home = tmp_path / "slurm"
    home.mkdir()
    config = home / "slurm.conf"
    name = socket.gethostname()
    config.write_text(
        f"""ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={home}
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={name} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=1000 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=FORCE:8 State=UP
"""
    )
    environment = {**os.environ, "SLURM_CONF": str(config)}
    logs = (home / "daemons.log").open("w")
    daemons = [
        subprocess.Popen([daemon, "-D", "-f", str(config)], env=environment, stdout=logs, stderr=logs)
        for daemon in ("slurmctld", "slurmd")
    ]
    try:
        wait_for(
            lambda: "idle" in output_of(["sinfo", "-h", "-o", "%t"], environment), 60, (home / "daemons.log").read_text
        )
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            daemon.wait(30)
        logs.close()


def output_of(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout


def wait_for(condition: Callable[[], object], seconds: float, explain: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {explain()}"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_pre_empted_training_is_requeued_and_resumed(
    tmp_path: Path, slurm: dict[str, str], base: Path, write_config: Callable[..., Path]
) -> None:
    write_rows(tmp_path / "rows.jsonl", toy_rows())
    config = write_config(
        data='train = "rows.jsonl"',
        labels='task = "multi_label"\ncolumn = "colours"\nnames = ["red", "green", "blue"]',
        text="max_tokens = 32",
        model=f'base = "{base}"\npooling = "mean"',
        training="epochs = 60\nbatch_size = 16\nlearning_rate = 5e-3",
    )
    output, log = tmp_path / "model", tmp_path / "job.log"
    environment = {**slurm, "LABELBEAM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    flags = [str(config), "--data_dir", str(tmp_path), "--output", str(output)]
    submit = ["sbatch", "--parsable", f"--output={log}", str(SLURM), "training.train", *flags]
    job = output_of(submit, environment).strip()
    assert job.isdigit()

    def explain() -> str:
        return log.read_text() if log.exists() else output_of(["squeue"], environment)

    wait_for(lambda: list(tmp_path.glob("model.checkpoints/*/trainer_state.json")), 120, explain)
    output_of(["scontrol", "requeue", job], environment)
    wait_for(lambda: output_of(["squeue", "-h", "-o", "%t", "-j", job], environment).strip() != "R", 60, explain)
    assert not output.exists()
    # A requeued job starts after a pause, unless its start time is set to now.
    wait_for(lambda: output_of(["squeue", "-h", "-o", "%t", "-j", job], environment).strip() == "PD", 60, explain)
    time.sleep(3)  # within the second of the requeue, Slurm would refuse the credential of the new start
    output_of(["scontrol", "update", f"jobid={job}", "starttime=now"], environment)
    wait_for(lambda: "COMPLETED" in output_of(["scontrol", "show", "job", job], environment), 240, explain)

    written = log.read_text()
    assert "start 0: training.train" in written
    assert "start 1: training.train" in written
    epochs = [line.split()[1] for line in written.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == len(set(epochs)) or len(epochs) < 2 * 60 - 1  # the training did not start over
    assert trained_model.verify(output).metrics["test"]["macro_f1"] > 0.9
    assert not (tmp_path / "model.checkpoints").exists()


@pytest.mark.slow
@pytest.mark.engine("labelbeam worker", "eight tasks on Slurm, two killed; same bytes")
def test_tasks_of_which_two_are_killed_write_what_one_command_writes(tmp_path: Path, slurm: dict[str, str]) -> None:
    model, corpus, run = tiny_model(tmp_path / "m"), write_corpus(tmp_path / "c.jsonl", 20_000), tmp_path / "shared"
    flags = ["--model", str(model), "--input", str(corpus), "--slice_mb", "0.01", "--scores", "all", "--threads", "1"]
    environment = {**slurm, "LABELBEAM_PYTHON": sys.executable}
    log = tmp_path / "task-%a.log"
    submit = ["sbatch", "--parsable", "--array=0-7", f"--output={log}", str(SLURM), "inference.worker", *flags]
    job = output_of([*submit, "--output", str(run)], environment).strip()

    def explain() -> str:
        return "".join(path.read_text() for path in tmp_path.glob("task-*.log"))

    wait_for(lambda: len(list(run.glob("receipts/*"))) >= 20, 240, explain)
    assert not (run / "summary.json").exists()
    output_of(["scancel", "--signal=KILL", "--full", f"{job}_0", f"{job}_1"], environment)
    wait_for(lambda: not output_of(["squeue", "-h", "-j", job], environment), 240, explain)
    assert beam_runner.main([*flags, "--output", str(tmp_path / "whole")]) == 0
    assert contents(run) == contents(tmp_path / "whole")
    workers = {json.loads(path.read_bytes())["worker"] for path in (run / "receipts").iterdir()}
    assert len(workers) > 2


@pytest.fixture
def run_with_stubs(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that runs a job script with stubs of its commands, and returns the lines that they print."""

    def call(script: Path, *arguments: str, **variables: str) -> list[str]:
        commands = tmp_path / "commands"
        commands.mkdir(exist_ok=True)
        for name in ("python", "srun", "scontrol"):
            (commands / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
            (commands / name).chmod(0o755)
        environment = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), **variables}
        command = ["bash", str(script), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.splitlines()

    return call


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["training.train", "c.toml"], {}, "python -m training.train c.toml --resume"),
        (
            ["training.train", "c.toml"],
            {"SLURM_GPUS_ON_NODE": "4"},
            "python -m accelerate.commands.launch --num_processes 4 -m training.train c.toml --resume",
        ),
        (
            ["training.sweep", "c.toml"],
            {"SLURM_ARRAY_TASK_ID": "3"},
            "python -m training.sweep c.toml --search_only --worker 3",
        ),
        (["training.sweep", "c.toml"], {}, "python -m training.sweep c.toml"),
        (
            ["training.train", "c.toml"],
            {"SLURM_GPUS_ON_NODE": "2", "SLURM_NNODES": "3", "SLURM_JOB_NODELIST": "n[1-3]"},
            "srun --nodes=3 --ntasks-per-node=1 python -m accelerate.commands.launch --num_processes 6 "
            "--num_machines 3 --machine_rank 0 --rdzv_backend c10d --main_process_ip scontrol show hostnames n[1-3] "
            "--main_process_port 29500 -m training.train c.toml --resume",
        ),
        (
            ["training.train", "c.toml"],
            {"LABELBEAM_IMAGE": "image.sqsh", "LABELBEAM_MOUNTS": "/data:/data"},
            "srun --ntasks=1 --container-image=image.sqsh --container-mounts={cwd}:{cwd},/data:/data "
            "--container-workdir={cwd} python -m training.train c.toml --resume",
        ),
    ],
)
def test_what_a_slurm_job_runs(
    tmp_path: Path,
    run_with_stubs: Callable[..., list[str]],
    arguments: list[str],
    variables: dict[str, str],
    expected: str,
) -> None:
    lines = run_with_stubs(SLURM, *arguments, LABELBEAM_PYTHON="python", **variables)
    assert lines[-1] == expected.format(cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--gpus", "1", "--time=4:00:00", "training.train", "c.toml", "--resume"],
            "sbatch --gpus 1 --time=4:00:00 --chdir {cwd} {cwd}/deploy/slurm/job.sbatch training.train c.toml --resume",
        ),
        (["--interactive", "--gpus", "1"], "srun --pty --gpus 1 --chdir {cwd} bash"),
        (
            ["--image", "i.sqsh", "--mounts", "/data:/data", "--interactive", "python"],
            "srun --pty --chdir {cwd} --container-image={cwd}/i.sqsh --container-workdir={cwd} "
            "--container-mounts={cwd}:{cwd},/data:/data python",
        ),
    ],
)
def test_what_the_submit_wrapper_runs(tmp_path: Path, arguments: list[str], expected: str) -> None:
    script = SLURM.with_name("submit.sh")
    (tmp_path / "i.sqsh").touch()
    command = ["bash", str(script), "--dry_run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shlex.split(done.stdout) == expected.format(cwd=tmp_path).split()


@pytest.mark.parametrize("arguments", [[], ["--gpus"], ["--image"], ["--gpus", "1"]])
def test_a_submission_that_lacks_something(tmp_path: Path, arguments: list[str]) -> None:
    script = SLURM.with_name("submit.sh")
    done = subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "expected" in done.stderr


def test_what_a_grid_engine_job_runs(run_with_stubs: Callable[..., list[str]]) -> None:
    train = run_with_stubs(SGE, "training.train", "c.toml", LABELBEAM_PYTHON="python", SGE_TASK_ID="undefined")
    assert train[-1] == "python -m training.train c.toml --resume"
    sweep = run_with_stubs(SGE, "training.sweep", "c.toml", LABELBEAM_PYTHON="python", SGE_TASK_ID="2")
    assert sweep[-1] == "python -m training.sweep c.toml --search_only --worker 2"
    alone = run_with_stubs(SGE, "training.sweep", "c.toml", LABELBEAM_PYTHON="python", SGE_TASK_ID="undefined")
    assert alone[-1] == "python -m training.sweep c.toml"


@pytest.mark.parametrize("script", [SLURM, SGE])
def test_a_job_fails_if_its_command_fails(run_with_stubs: Callable[..., list[str]], script: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_with_stubs(script, "training.train", LABELBEAM_PYTHON="false")
    assert caught.value.returncode == 1
    with pytest.raises(subprocess.CalledProcessError, match="exit status 1"):
        run_with_stubs(script)
