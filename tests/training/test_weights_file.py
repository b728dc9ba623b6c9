"""fork=FILE.pt: weights of files that torch.save wrote are loaded where names and shapes fit, and the rest is named."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv, TransformerConv

from joyful import results
from joyful.model.joyful import GraphModel, structure
from joyful.records import InputError
from joyful.training.averaging import ParameterAverage
from joyful.training.experiment import train_run
from joyful.training.weights_file import load_weights, read_weights
from tests.support.hostile_pickles import hostile_pickles
from tests.support.models import random_split, tiny_model
from tests.support.runs import tiny_request
from tests.training.test_experiment import stop_after

LENGTHS = (4, 1, 7)
HIDDEN, HEADS, SPEAKERS, CLASSES = 6, 3, 2, 3
REFERENCE = {
    "context": "transformer", "context_layers": 2, "context_heads": 2, "hidden_size": HIDDEN, "graph_heads": HEADS, "skip": False,
    "standardise": False, "concat_gin_gout": False, "classifier_skip": False, "speaker_embedding": 0, "use_highway": False,
}  # fmt: skip


class Reference(nn.Module):
    """The network of the reference, with the names of its modules and its unused ones, on utterances without padding."""

    def __init__(self, width: int, feedforward: int, graph: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, feedforward, batch_first=True)
        self.rnn, self.clf = nn.Module(), nn.Module()
        self.rnn.transformer_encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.rnn.transformer_out = nn.Linear(width, HIDDEN)
        self.rnn.encoding_layer, self.rnn.LayerNorm = nn.Embedding(110, width), nn.LayerNorm(width)
        convolutions = nn.Module()
        convolutions.conv1 = RGCNConv(HIDDEN, HIDDEN, 2 * SPEAKERS**2)
        convolutions.conv2 = TransformerConv(HIDDEN, HIDDEN, heads=HEADS)
        convolutions.bn = nn.BatchNorm1d(HIDDEN * HEADS)
        self.add_module(graph, convolutions)
        self.clf.lin1, self.clf.lin2 = nn.Linear(HIDDEN * HEADS, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.clf.lin_7, self.clf.linear = nn.Linear(HIDDEN, 7), nn.Linear(HIDDEN * HEADS, CLASSES)
        self._graph = graph

    def forward(self, fused: Tensor, batch: Any, edges: Any) -> Tensor:
        parts = [self.rnn.transformer_encoder(part[None])[0] for part in fused.split(batch.lengths)]
        nodes = self.rnn.transformer_out(torch.cat(parts))
        speaker, later = batch.speakers, (edges.source > edges.target).long()
        relation = (speaker[edges.source] * SPEAKERS + speaker[edges.target]) * 2 + later
        graph, index = getattr(self, self._graph), torch.stack([edges.source, edges.target])
        hidden = graph.conv2(graph.conv1(nodes, index, relation), index)
        return self.clf.lin2(self.clf.lin1(nn.functional.leaky_relu(graph.bn(hidden))).relu())


def ours(seed: int = 1, **changes: Any) -> tuple[GraphModel, Any]:
    split = random_split(LENGTHS, SPEAKERS, classes=CLASSES)
    return tiny_model(split, seed=seed, **{**REFERENCE, **changes}), split.batch(np.arange(len(LENGTHS)))


def reference_of(model: GraphModel, graph: str = "gcl") -> Reference:
    torch.manual_seed(7)
    first = model.context.layers[0]
    reference = Reference(model.fusion.output_size, first.linear1.out_features, graph)
    for tensor in reference.state_dict().values():  # all tensors, also those that start at 0 and 1
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) * 0.4 + 0.05)
    return reference.eval()


def joyful_form(network: dict[str, Tensor], fusion: dict[str, Tensor]) -> Any:
    return {"args": argparse.Namespace(device="cuda"), "modelN_state_dict": network, "modelF_state_dict": fusion}


FORMS: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], Any]] = {
    "joyful": joyful_form,
    "cogmen": lambda n, f: {"best_dev_f1": np.float64(0.5), "best_epoch": np.int64(3), "best_state": {**n, **f}},
    "plain": lambda n, f: {**n, **f},
    "parallel": lambda n, f: {f"module.{name}": value for name, value in {**n, **f}.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_the_reference_gives_its_predictions(tmp_path: Path, form: str, legacy: bool) -> None:
    """The graph has the relations of this program (see the module); all else is built from torch's and PyG's modules."""
    other, _ = ours(seed=5)
    model, batch = ours()
    reference = reference_of(model, "gcn" if form == "cogmen" else "gcl")
    content = FORMS[form](reference.state_dict(), other.fusion.state_dict())
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    load_weights(model, tmp_path / "w.pt")
    model.eval()
    with torch.no_grad():
        fused = other.fusion(**batch.features).fused
        edges = structure(batch, model.settings.wp, model.settings.wf).edges
        expected = reference(fused, batch, edges)
        torch.testing.assert_close(model(batch).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_layers_have_their_place(tmp_path: Path, kind: str) -> None:
    model, _ = ours(context=kind)
    width = model.context.layers[0].input_size
    cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](width, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    torch.save({f"rnn.rnn.{name}": value for name, value in cell.state_dict().items()}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    for name, value in cell.state_dict().items():
        layer = model.context.layers[int(name.split("_l")[1][0])]
        assert torch.equal(layer.state_dict()[name.replace("_l1", "_l0")], value)


def test_the_line_says_what_did_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, _ = ours()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reference = reference_of(model).state_dict()
    reference["clf.lin2.weight"] = torch.ones(6, HIDDEN)
    torch.save(reference, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO):
        load_weights(model, tmp_path / "w.pt")
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not any(name.startswith("fusion.") for name in changed)
    assert "classifier.weight" not in changed
    (line,) = caplog.messages
    loaded = len(reference) - len(("encoding", "LayerNorm w", "b", "lin2.weight", "lin_7 w", "b", "linear w", "b"))
    assert line.startswith(
        f"fork={tmp_path / 'w.pt'}: {loaded} of {len(after)} tensors of the model are from this file; 8 of the"
    )
    assert "fit nowhere: rnn.encoding_layer.weight (110, 8), " in line
    assert f"{len(after) - loaded} of the model keep their initial values: fusion." in line


def test_seven_classes_have_a_classifier_of_their_own(tmp_path: Path) -> None:
    weights = {"clf.lin2.weight": torch.ones(2, HIDDEN), "clf.lin_7.weight": torch.full((3, HIDDEN), 2.0)}
    torch.save(weights, tmp_path / "w.pt")
    model, _ = ours()
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.classifier.weight.detach(), weights["clf.lin_7.weight"])
    weights["clf.lin2.weight"] = torch.ones(3, HIDDEN)  # with as many classes, the usual one is used
    torch.save(weights, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.classifier.weight.detach(), weights["clf.lin2.weight"])


def save_module(path: Path) -> None:
    torch.save({"args": argparse.Namespace(), "modelN_state_dict": nn.Sequential(nn.Linear(2, 2))}, path)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing fits": (
        lambda path: torch.save({"a": torch.ones(3), "b": torch.ones(2, 2)}, path),
        r"no weight matrix fits the model; the file has b \(2, 2\), a \(3,\); the model has fusion\..* \(\d+, \d+\), \.\.\.; set",
    ),
    "a bias fits by chance": (
        lambda path: torch.save({"clf.lin2.bias": torch.ones(CLASSES), "clf.lin2.weight": torch.ones(CLASSES, 100)}, path),
        r"no weight matrix fits the model; the file has clf.lin2.weight \(3, 100\)",
    ),
    "modules": (
        save_module,
        r"expected weights, got objects of torch.nn.modules.\w+.\w+.*which run code when they are read; where it was written, "
        r"save the weights alone: c = torch.load",
    ),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), r"expected a state dict, got dict without tensors"),
    "a list": (lambda path: torch.save([torch.ones(2)], path), r"expected a state dict, got list without tensors"),
    "NaN": (
        lambda path: torch.save({"classifier.bias": torch.full((CLASSES,), torch.nan)}, path),
        r"classifier.bias has values that are NaN or infinite",
    ),
    "two state dicts": (
        lambda path: torch.save({"model": {"a.weight": torch.ones(2, 2)}, "ema": {"a.weight": torch.zeros(2, 2)}}, path),
        r"a.weight is there more than once; save one state dict alone",
    ),
    "no plain tensors": (
        lambda path: torch.save({"a": torch.eye(2).to_sparse(), "b": torch.ones(2, 2, dtype=torch.complex64)}, path),
        r"expected a state dict, got dict without tensors",
    ),
    "text": (lambda path: path.write_text("weights"), r"expected a file of torch.save, or the folder of a run, got something"),
    "empty": (lambda path: path.write_bytes(b""), r"expected a file of torch.save"),
    "a zip": (lambda path: path.write_bytes(b"PK\3\4" + bytes(100)), r"expected a file of torch.save"),
    "missing": (lambda _: None, r"cannot be read \(No such file or directory\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    write, message = REFUSED[kind]
    path = tmp_path / "w.pt"
    write(path)
    model, _ = ours()
    with pytest.raises(InputError, match=f"^fork={path}: {message}") as caught:
        load_weights(model, path)
    assert str(caught.value).isprintable()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(3)}, path)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            read_weights(path)


def test_no_code_of_a_hostile_file_runs(tmp_path: Path) -> None:
    """The corpus of hostile pickles, as files of torch.save before version 1.6 began with a pickle, and in an archive."""
    canary = tmp_path / "canary"
    corpus = {name: file.data for name, file in hostile_pickles(canary).items() if file.runs}
    assert len(corpus) > 25
    for name, data in corpus.items():
        plain, archive = tmp_path / f"{name}.pt", tmp_path / f"{name}.zip"
        plain.write_bytes(data)
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", data)
            file.writestr("archive/version", "3\n")
        for path in (plain, archive):
            with pytest.raises(InputError) as caught:
                read_weights(path)
            assert str(caught.value).isprintable()
    assert not canary.exists()


def test_an_average_starts_at_the_loaded_values() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average = ParameterAverage({"p": parameter}, 0.9)
    parameter.data.fill_(3.0)
    average.restart()
    assert torch.equal(average.state_dict()["p"], torch.full((2,), 3.0))


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    train_run(tiny_request(folder, *overrides))
    return results.read_run(folder)


@pytest.mark.slow
def test_a_run_starts_from_the_file_with_the_settings_of_the_command(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    overrides = ("training.epochs=1", "optimizer=sgd", "optimizer.learning_rate=1e-12", "training.moving_average=0.9")
    train(tmp_path / "first", "training.epochs=2", "seed=7")
    (checkpoint,) = (tmp_path / "first" / "checkpoint").glob("last-*.safetensors")
    weights = {name: x for name, x in load_file(checkpoint).items() if name.startswith("model.")}
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    info = train(tmp_path / "second", f"fork={path}", *overrides, "seed=8")
    (checkpoint,) = (tmp_path / "second" / "checkpoint").glob("last-*.safetensors")
    after = load_file(checkpoint)
    parameters = [name for name in weights if not name.startswith(("model.norm.running", "model.norm.num"))]
    for name in parameters:  # the learning rate is 1e-12
        torch.testing.assert_close(after[name], weights[name])
    averages = [name for name in after if name.startswith("average.")]
    assert averages
    for name in averages:
        torch.testing.assert_close(after[name], weights["model." + name.removeprefix("average.")])
    assert (info["config"]["fork"], info["seed"], info["epochs"]) == (str(path), 8, 1)
    epochs = {row["epoch"] for row in results.RunFolder.open(tmp_path / "second").history_rows()}
    assert max(epochs) == 1


@pytest.mark.slow
def test_a_resumed_run_does_not_load_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"classifier.weight": torch.full((4, 8), 0.5)}, path)
    train(tmp_path / "whole", f"fork={path}")
    train(tmp_path / "plain")
    with monkeypatch.context() as patch:
        stop_after(patch, 2.0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken", f"fork={path}")
    path.unlink()
    train_run(tiny_request(tmp_path / "elsewhere", f"resume={tmp_path / 'broken'}"))
    histories = {name: (tmp_path / name / "history.parquet").read_bytes() for name in ("whole", "plain", "broken")}
    assert histories["broken"] == histories["whole"] != histories["plain"]


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_checkpoint_starts_from_the_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"classifier.weight": torch.full((4, 8), 0.5)}, path)
    train(tmp_path / "whole", f"fork={path}")
    train(tmp_path / "broken", f"fork={path}")
    shutil.rmtree(tmp_path / "broken" / "checkpoint")
    (tmp_path / "broken" / "history.parquet").unlink()
    info = json.loads((tmp_path / "broken" / "run.json").read_text())
    (tmp_path / "broken" / "run.json").write_text(json.dumps({**info, "status": "interrupted", "objective": None}))
    train_run(tiny_request(tmp_path / "elsewhere", f"resume={tmp_path / 'broken'}"))
    assert (tmp_path / "broken" / "history.parquet").read_bytes() == (
        tmp_path / "whole" / "history.parquet"
    ).read_bytes()
