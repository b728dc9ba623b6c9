"""Honest pickles in the format of COGMEN and JOYFUL, for tests: a class `Sample` exists only while one is written."""

from __future__ import annotations

import pickle
import pickletools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Protocols 4 and 5 write a name with its length in one byte before it; numpy.core is NumPy 1's name of numpy._core.
_NEW_NAMES = (b"\x8c\x16numpy._core.multiarray", b"\x8c\x13numpy._core.numeric", b"numpy._core")
_OLD_NAMES = (b"\x8c\x15numpy.core.multiarray", b"\x8c\x12numpy.core.numeric", b"numpy.core")


@contextmanager
def sample_class(module: str = "Sample", slots: tuple[str, ...] = ()) -> Iterator[type]:
    """A class `Sample` that pickle finds in `module` (with its parents, if dotted) until the context ends."""
    namespace = {"__module__": module, **({"__slots__": slots} if slots else {})}
    kind = type("Sample", (), namespace)
    names = [module[:end] for end, c in enumerate(module + ".") if c == "."]
    shadowed = {name: sys.modules[name] for name in names if name in sys.modules}
    try:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        sys.modules[module].Sample = kind  # type: ignore[attr-defined]
        yield kind
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(shadowed)


def dump(content: dict[str, list[dict[str, Any]]], protocol: int = 4, module: str = "Sample") -> bytes:
    """The pickle of split -> dialogues, each given by the attributes of its sample."""
    with sample_class(module) as kind:
        splits = {split: [kind() for _ in dialogues] for split, dialogues in content.items()}
        for split, dialogues in content.items():
            for sample, attributes in zip(splits[split], dialogues, strict=True):
                vars(sample).update(attributes)
        return pickle.dumps(splits, protocol)


def with_old_numpy_names(data: bytes) -> bytes:
    """The same pickle as NumPy 1 would have named its functions."""
    for new, old in zip(_NEW_NAMES, _OLD_NAMES, strict=True):
        data = data.replace(new, old)
    return pickletools.optimize(data)  # writes the frames anew, since their lengths have changed
