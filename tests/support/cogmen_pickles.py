"""Valid pickles in the format of COGMEN and JOYFUL. The class `Sample` exists only while a pickle is written."""

from __future__ import annotations

import pickle
import pickletools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Protocols 4 and 5 write the length of a name in one byte before it. numpy.core is the name of numpy._core in NumPy 1.
_NEW_NAMES = (b"\x8c\x16numpy._core.multiarray", b"\x8c\x13numpy._core.numeric", b"numpy._core")
_OLD_NAMES = (b"\x8c\x15numpy.core.multiarray", b"\x8c\x12numpy.core.numeric", b"numpy.core")


@contextmanager
def sample_class(module: str = "Sample", slots: tuple[str, ...] = ()) -> Iterator[type]:
    """Provide a class `Sample` that pickle finds in `module`, which may be dotted, until the context ends."""
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
    """Return the pickle of split -> dialogues. Each dialogue is given by the attributes of its `Sample`."""
    with sample_class(module) as kind:
        splits = {split: [kind() for _ in dialogues] for split, dialogues in content.items()}
        for split, dialogues in content.items():
            for sample, attributes in zip(splits[split], dialogues, strict=True):
                vars(sample).update(attributes)
        return pickle.dumps(splits, protocol)


def with_old_numpy_names(data: bytes) -> bytes:
    """Return the same pickle with the function names of NumPy 1."""
    for new, old in zip(_NEW_NAMES, _OLD_NAMES, strict=True):
        data = data.replace(new, old)
    return pickletools.optimize(data)  # rewrites the frames, whose lengths have changed
