"""Assignment of one visible GPU to each worker."""

import os
import subprocess
import sys

import psutil
import pytest

from joyful.sweeper import gpus
from joyful.sweeper.program import Program
from joyful.sweeper.training_process import TrainingProcess
from tests.support import sweeps


@pytest.mark.parametrize(
    ("value", "names"),
    [("0,1", ["0", "1"]), (" GPU-8a2f , 3", ["GPU-8a2f", "3"]), ("", []), ("-1", []), ("2", ["2"])],
)
def test_the_variable_lists_the_visible_gpus(value, names, tmp_path):
    (tmp_path / "0000:01:00.0").mkdir()
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": value}, tmp_path) == names


def test_without_the_variable_the_driver_lists_the_gpus(tmp_path):
    assert gpus.visible({}, tmp_path / "none") == []
    for address in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / address).mkdir()
    assert gpus.visible({}, tmp_path) == ["0", "1", "2"]


def test_workers_take_gpus_round_robin():
    assigned = [gpus.environment(index, ["4", "7"])["CUDA_VISIBLE_DEVICES"] for index in range(5)]
    assert assigned == ["4", "7", "4", "7", "4"]
    assert gpus.environment(3, []) == {}


def test_the_training_process_sees_only_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    program = Program({}, "", {"commit": None, "dirty": None})
    process = TrainingProcess(tmp_path / "log", gpus.environment(1), program)
    try:
        process.send({})
        # the environment of a process that has just started is empty
        sweeps.wait_until(lambda: psutil.Process(process.pid).environ())
        environment = psutil.Process(process.pid).environ()
        assert environment["CUDA_VISIBLE_DEVICES"] == "1"
        assert environment.keys() >= os.environ.keys()
    finally:
        process.close(grace=0.0)


def test_a_run_on_a_gpu_names_it(monkeypatch):
    import torch

    from joyful.training.experiment import describe_device

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert describe_device(torch.device("cuda")) == "NVIDIA H100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert describe_device(torch.device("cuda")) == "NVIDIA H100 (GPU 1)"
    assert describe_device(torch.device("cpu")) == "cpu"


def test_finding_gpus_imports_no_torch():
    code = "import sys, joyful.sweeper.gpus; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
