"""Start a run from a file of weights that `torch.save` wrote, such as a checkpoint of COGMEN or JOYFUL (fork=FILE.pt).

The file is read with `weights_only=True`, so that nothing in it runs. It may be a state dict, or a dict with state dicts
in it: COGMEN writes {"best_state": ...}, JOYFUL {"modelN_state_dict": ..., "modelF_state_dict": ...} (the network and the
fusion). A tensor is loaded where its name, or the name that `_REFERENCE` gives it, and its shape fit.

Two things of the reference have no counterpart here, so its predictions are not reproduced exactly: it counts the edge
from an utterance to itself as one to the future (here: to the past), and its speakers are M and F (here: in the order in
which they speak).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from joyful.records import InputError, first_line_of, one_line

_log = logging.getLogger(__name__)

#: Pattern of a name in the reference -> name in `GraphModel`. The first file name that fits a tensor of the model wins.
_REFERENCE = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"rnn\.transformer_encoder\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)", r"context.layers.\1.qkv.\2"),
        (r"rnn\.transformer_encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"context.layers.\1.out.\2"),
        (r"rnn\.transformer_encoder\.layers\.(\d+)\.(linear[12]|norm[12])\.(weight|bias)", r"context.layers.\1.\2.\3"),
        (r"rnn\.transformer_out\.(weight|bias)", r"context.project.\1"),
        (r"rnn\.rnn\.((?:weight|bias)_[ih]h)_l(\d+)((?:_reverse)?)", r"context.layers.\2.\1_l0\3"),
        (r"gc[ln]\.conv1\.(weight|root|bias)", r"graph_conv.\1"),
        (r"gc[ln]\.conv2\.(lin_(?:query|key|value|skip)\.(?:weight|bias))", r"graph_transformer.\1"),
        (r"gc[ln]\.bn\.(\w+)", r"norm.\1"),
        (r"clf\.lin1\.(weight|bias)", r"linear.\1"),
        (r"clf\.lin2\.(weight|bias)", r"classifier.\1"),
        (r"clf\.lin_7\.(weight|bias)", r"classifier.\1"),  # the classifier of 7class; lin2 has two classes there
        (r"((?:fuse_(?:in|out)(?:Global|Inter)|project[ATVB]|utterance_gate|dialogue_gate)\..+)", r"fusion.\1"),
        (r"(global_emotion_state)", r"fusion.\1"),
    )
)
#: Prefixes that wrappers put before every name.
_WRAPPERS = re.compile(r"^(?:(?:module|model|_orig_mod)\.)+")
#: Classes that checkpoints hold beside weights. Their content is not read.
_BESIDE = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64", "Int32")),
)
_CONVERT = (
    "where it was written, save the weights alone: c = torch.load(FILE, weights_only=False); torch.save({k: v.state_dict()"
    ' for k, v in c.items() if hasattr(v, "state_dict")}, "weights.pt")'
)


class _Unread:
    """Stands for an object beside the weights."""

    def __new__(cls, *_: object) -> Self:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a file into a model where they fit, and log what did not.

    The standardisation of the features stays as it is, because it belongs to the data.

    Args:
        model: The model, changed in place.
        path: The file.

    Raises:
        InputError: If the file cannot be read as weights, no matrix fits, or one is NaN or infinite.
    """
    weights = read_weights(path)
    places = {name: value for name, value in model.state_dict().items() if not name.startswith("standardise.")}
    loaded: dict[str, str] = {}
    for name, value in weights.items():
        target = next((t for t in _targets(name) if t in places and places[t].shape == value.shape), None)
        if target is None or target in loaded:
            continue
        if not torch.isfinite(value.float()).all():
            raise InputError(
                f"fork={path}: {one_line(name)} has values that are NaN or infinite; take another checkpoint"
            )
        with torch.no_grad():
            places[target].copy_(value)
        loaded[target] = name
    if not any(places[target].ndim >= 2 for target in loaded):  # biases and counters of other models fit by chance
        raise InputError(
            f"fork={path}: no weight matrix fits the model; the file has {_examples(weights)}; the model has "
            f"{_examples(places)}; "
            "set fusion, modalities and the sizes of the model (model=reference) to those of the checkpoint"
        )
    _report(path, weights, loaded, places)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return name -> tensor of a file that torch.save wrote.

    Args:
        path: The file.

    Raises:
        InputError: If the file cannot be read, holds objects other than weights, or holds no weights.
    """
    stand_ins: list[Any] = [(_Unread, name) for name in _BESIDE]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"fork={path}: cannot be read ({error.strerror}); check its permissions") from None
    except Exception as error:  # a damaged file can cause any exception in torch
        if objects := _objects(path):
            raise InputError(
                f"fork={path}: expected weights, got objects of {', '.join(objects)}, which run code when they are read; "
                f"{_CONVERT}"
            ) from None
        reason = re.sub(r"\x1b\[\d*m", "", first_line_of(error))
        raise InputError(
            f"fork={path}: expected a file of torch.save, or the folder of a run, got something else ({reason}); set fork="
        ) from None
    weights: dict[str, Tensor] = {}
    for name, value in _tensors(content):
        if name in weights:
            raise InputError(f"fork={path}: {one_line(name)} is there more than once; save one state dict alone")
        weights[name] = value
    if not weights:
        raise InputError(
            f"fork={path}: expected a state dict, got {type(content).__name__} without tensors; save model.state_dict()"
        )
    return weights


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a state dict, and of the state dicts in a dict."""
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        if _is_weight(name, value):
            yield _WRAPPERS.sub("", name), value
        elif isinstance(value, Mapping):
            yield from ((_WRAPPERS.sub("", key), x) for key, x in value.items() if _is_weight(key, x))


def _is_weight(name: Any, value: Any) -> bool:
    """Whether the value is a named tensor of plain numbers, not a sparse, nested, quantised or complex one."""
    if not (isinstance(name, str) and isinstance(value, Tensor)) or value.is_nested:
        return False
    plain = value.layout is torch.strided and value.device.type == "cpu"
    return plain and not value.is_quantized and not value.is_complex()


def _targets(name: str) -> Iterator[str]:
    """Yield the names that a tensor of the file may have in the model."""
    yield name
    for pattern, target in _REFERENCE:
        if match := pattern.fullmatch(name):
            yield match.expand(target)


def _objects(path: Path) -> list[str]:
    """Return the classes in a file that `weights_only` refuses, at most three."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # the file is damaged, or of the format before torch 1.6
        return []
    return [one_line(name, 60) for name in names if name not in _BESIDE][:3]


def _report(path: Path, weights: Mapping[str, Tensor], loaded: Mapping[str, str], places: Mapping[str, Tensor]) -> None:
    used = set(loaded.values())
    left = {name: value for name, value in weights.items() if name not in used}
    initial = {name: value for name, value in places.items() if name not in loaded}
    parts = [f"{len(loaded)} of {len(places)} tensors of the model are from this file"]
    if left:
        parts.append(f"{len(left)} of the file fit nowhere: {_examples(left)}")
    if initial:
        parts.append(f"{len(initial)} of the model keep their initial values: {_examples(initial)}")
    _log.info("fork=%s: %s", path, "; ".join(parts))


def _examples(tensors: Mapping[str, Tensor]) -> str:
    shown = sorted(tensors.items(), key=lambda item: item[1].ndim < 2)[:3]  # matrices first
    names = [f"{one_line(name, 60)} {tuple(value.shape)}" for name, value in shown]
    return ", ".join(names) + (", ..." if len(tensors) > 3 else "")
