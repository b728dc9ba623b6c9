"""The benchmark of a GPU, as far as the CPU can run it: its refusal, its stages on the CPU, and its table."""

import json

import pytest
import torch

from benchmarks import cuda
from benchmarks.figures import figure

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_it_is_refused_in_one_line_without_a_gpu(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cuda.main(["--json", str(tmp_path / "figures.json")])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == (
        "joyful: benchmarks.cuda: expected a CUDA device, found none; run it on a machine with a GPU"
    )
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_stages_run_on_the_cpu(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cuda, "WORKERS", (2,))
    named, document = measured(cuda.main, "--device", "cpu", "--size", "small", "--repeats", "1", "--threads", "1")
    assert document["gpu"] == "cpu"
    assert document["notes"] == []
    for model in cuda.MODELS:
        assert named[f"largest difference from the processor's curves, model={model}"].value == 0
        assert named[f"steps without waiting, model={model}"].ratio == 1
        assert named[f"runs of the same bits, model={model}"].ratio == 1
        for precision in cuda.PRECISIONS:
            step, epoch = (named[f"{what}, {precision}, model={model}"].value for what in ("step", "epoch"))
            assert 0 < step < epoch
    assert named["epochs per minute, 2 workers, model=small"].value > 0
    cuda.main(["--render", str(tmp_path / "figures.json")])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("|") for line in lines) == 2 + 3 + 3 * len(cuda.PRECISIONS) + 1


def test_a_stage_that_would_begin_too_late_is_named(monkeypatch):
    monkeypatch.setattr(cuda, "_checks", lambda model, *_: [figure(f"x, model={model}", 1.0, "s", 1.0, "one")])
    shown, left_out = cuda.figures_of("small", CPU, 1, deadline=0.0)
    assert shown == []
    assert len(left_out) == len(cuda.MODELS) * (1 + len(cuda.PRECISIONS)) + len(cuda.WORKERS)
    assert left_out[0] == "checks, model=small is left out: the time is up; raise --seconds"


def test_the_table_has_a_row_for_each_measure(tmp_path, capsys):
    figures = [
        figure("largest difference from the processor's curves, model=small", 2e-5, "", 1e-3, "what counts as equal"),
        figure("steps without waiting, model=small", 6.0, "steps", 6.0, "the steps"),
        figure("steps without waiting, model=reference", 5.0, "steps", 6.0, "the steps"),
        figure("step, fp32, model=small", 0.004, "s", 0.004, "step, fp32, model=small"),
        figure("step, bf16, model=small", 0.002, "s", 0.004, "step, fp32, model=small"),
        figure("epoch, fp32, model=reference", 1.5, "s", 1.5, "epoch, fp32, model=reference"),
        figure("peak memory, fp32, model=reference", 3.25, "GiB", 3.25, "peak memory, fp32, model=reference"),
        figure("epochs per minute, 8 workers, model=small", 300.0, "epochs", 100.0, "1 worker"),
    ]
    document = {
        "gpu": "A GPU", "machine": {"torch": "2.13.0"}, "notes": ["8 workers is left out: the time is up"],
        "figures": [vars(one) for one in figures],
    }  # fmt: skip
    (tmp_path / "figures.json").write_text(json.dumps(document))
    cuda.main(["--render", str(tmp_path / "figures.json")])
    assert capsys.readouterr().out.splitlines() == [
        "A GPU, torch 2.13.0:",
        "",
        "| | small | reference |",
        "|---|---|---|",
        "| largest difference from the processor's curves | 2.0e-05 |  |",
        "| steps without waiting | 6 of 6 | 5 of 6 |",
        "| step, fp32 | 4 ms (1.00 of fp32) |  |",
        "| step, bf16 | 2 ms (0.50 of fp32) |  |",
        "| epoch, fp32 |  | 1.5 s (1.00 of fp32) |",
        "| peak memory, fp32 |  | 3.25 GiB |",
        "| epochs per minute, 8 workers | 300 (3.00 times one worker) |  |",
        "",
        "8 workers is left out: the time is up.",
    ]


def test_a_step_that_waits_is_counted():
    """The debug mode of torch raises this error on CUDA."""

    def waits():
        raise RuntimeError("called a synchronizing CUDA operation")

    def fails():
        raise RuntimeError("out of memory")

    assert cuda._does_not_wait(lambda: None, CPU)
    fake = torch.device("cuda")
    with pytest.MonkeyPatch.context() as patch:
        modes = []
        patch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
        assert not cuda._does_not_wait(waits, fake)
        assert cuda._does_not_wait(lambda: None, fake)
        with pytest.raises(RuntimeError, match="out of memory"):
            cuda._does_not_wait(fails, fake)
    assert modes == ["error", "default"] * 3
