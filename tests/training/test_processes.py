"""A run of several processes: the same as one, and what happens when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from segformer.training.run_folder import read_metrics

if not Path("/proc").is_dir():
    pytest.skip("finds processes through /proc", allow_module_level=True)

# The norm is frozen and nothing is dropped: the CPU has no synchronized norm, and each process throws its own dice.
SAME = ["--train.frozen-norm", "--model.dropout", "0", "--model.drop-path", "0", "--model.decoder-channels", "32"]
SMALL = [
    "--data.resize",
    "64",
    "48",
    "--data.crop",
    "40",
    "48",
    "--train.batch-size",
    "4",
    "--train.workers",
    "0",
    "--train.log-every",
    "1",
]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(data: Path, run: Path, *options: str) -> list[str]:
    python = [sys.executable, "-m", "segformer", "train", "--data", str(data), "--run-dir", str(run)]
    return [*python, "--device", "cpu", *SMALL, *SAME, *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False, env=ONE_THREAD)


def values(folder: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(folder) if name in line]


def ranks(parent: int) -> dict[int, int]:
    """Process ids of a run by rank, from the environment of the children."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status, variables = (entry / "stat").read_text(), (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            rank = [v for v in variables if v.startswith(b"RANK=")]
            if rank and int(status.rpartition(")")[2].split()[1]) == parent:
                found[int(rank[0].removeprefix(b"RANK="))] = int(entry.name)
    return found


def test_two_processes_are_one_run(small_data: Path, tmp_path: Path) -> None:
    steps = ["--train.steps", "6", "--train.eval-every", "3"]
    one = run(command(small_data, tmp_path / "one", *steps))
    two = run(command(small_data, tmp_path / "two", *steps, "--devices", "2"))
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert values(tmp_path / "two", "loss") == pytest.approx(values(tmp_path / "one", "loss"), rel=2e-5)
    assert values(tmp_path / "two", "val/mIoU") == values(tmp_path / "one", "val/mIoU")
    assert values(tmp_path / "two", "val/aAcc") == values(tmp_path / "one", "val/aAcc")
    ours, theirs = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
    assert "steps of 4 = 2 devices x 1 x 2 on 2 x cpu" in two.stdout
    assert two.stdout.count("mIoU 0.") == one.stdout.count("mIoU 0.")  # one of them speaks
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2


def test_a_killed_process_is_an_error_and_the_run_goes_on_alone(small_data: Path, tmp_path: Path) -> None:
    steps = ["--train.steps", "24", "--train.eval-every", "4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(command(small_data, whole, *steps)).returncode == 0
    arguments = command(small_data, parts, *steps, "--devices", "2")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    deadline = time.monotonic() + 200
    while not (parts / "last").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode == 2
    assert "error: process 1 of 2 was killed (SIGKILL), and the others ended with it; resume" in errors
    assert "Traceback" not in errors
    alone = run(command(small_data, parts, *steps, "--resume"))
    assert alone.returncode == 0, alone.stderr
    assert values(parts, "loss") == pytest.approx(values(whole, "loss"), rel=1e-3)
    assert [line["step"] for line in read_metrics(parts) if "loss" in line] == list(range(1, 25))


def test_a_run_of_one_process_goes_on_with_two(small_data: Path, tmp_path: Path) -> None:
    steps = ["--train.steps", "24", "--train.eval-every", "4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(command(small_data, whole, *steps)).returncode == 0
    process = subprocess.Popen(command(small_data, parts, *steps), stdout=subprocess.DEVNULL, env=ONE_THREAD)
    deadline = time.monotonic() + 200
    while not (parts / "last").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    both = run(command(small_data, parts, *steps, "--devices", "2", "--resume"))
    assert both.returncode == 0, both.stderr
    assert values(parts, "loss") == pytest.approx(values(whole, "loss"), rel=1e-3)
    assert [line["step"] for line in read_metrics(parts) if "loss" in line] == list(range(1, 25))


def test_what_is_wrong_is_said_once(small_data: Path, tmp_path: Path) -> None:
    (small_data / "masks" / "train" / "004.png").unlink()
    found = run(command(small_data, tmp_path / "run", "--devices", "2"))
    assert found.returncode == 2
    assert found.stderr.count("error:") == 1
    assert "004.png: no mask for the image" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_that_can_not_be_shared(small_data: Path, tmp_path: Path) -> None:
    found = run(command(small_data, tmp_path / "run", "--devices", "2", "--train.batch-size", "3"))
    assert found.returncode == 2
    assert "train.batch_size must be a multiple of the number of devices (2), got 3" in found.stderr
    assert "Traceback" not in found.stderr
