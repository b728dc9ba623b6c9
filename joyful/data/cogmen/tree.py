"""The size of the values of a pickle, written out as a tree: what the file shares counts as often as it is used.

Numbers have an allowance of their own. Many files have one row of zeros for a missing modality that all utterances
share, and the features of such a file are larger than its bytes suggest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from joyful.data.cogmen.pickle_globals import RefusedPickleError, SampleRecord, describe

MAX_DEPTH = 32
#: Bytes by which the numbers of a file may exceed its budget. The datasets of COGMEN with one modality need 150 MB.
REPEATED = 128 * 2**20

_SLOT, _CONTAINER, _RESULT = 16, 160, 64  # bytes of a reference, a container, an array
_FLOAT32 = 4  # bytes of a feature after reading


class Tree:
    """Measures values.

    Args:
        budget: Bytes that the values may take.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._known: dict[int, tuple[int, int, int]] = {}

    def measure(self, container: Any, depth: int = 0) -> tuple[int, int, int]:
        """Return (bytes without numbers, bytes of numbers, levels) of `container`.

        Args:
            container: A list, tuple, dict or SampleRecord.
            depth: Its level.

        Raises:
            RefusedPickleError: If the values exceed the budget, are nested too deep or in a cycle, or are of a type that
                no data have.
        """
        size, numbers, levels = self._known.get(id(container), (_CONTAINER, 0, 0))
        if depth + levels > MAX_DEPTH:  # detects cycles too
            raise RefusedPickleError(f"the pickle nests containers deeper than {MAX_DEPTH} levels, or in a cycle")
        if id(container) in self._known:
            return size, numbers, levels
        children = list(_children(container))
        if all(issubclass(kind, int | float | np.number) for kind in set(map(type, children))):
            numbers, children = _SLOT * len(children), []  # the row of a list of numbers, without a loop over them
        for child in children:
            kind = type(child)
            if isinstance(child, int | float | np.number):
                numbers += _SLOT
            elif kind in (str, bytes, bytearray):
                size += _SLOT + len(child)
            elif kind in (list, tuple, dict, SampleRecord):
                child_size, child_numbers, child_levels = self.measure(child, depth + 1)
                size, numbers, levels = size + child_size, numbers + child_numbers, max(levels, child_levels + 1)
            elif kind is np.ndarray and child.dtype.kind in "biuf":
                numbers += _RESULT + max(child.nbytes, _FLOAT32 * child.size)
            elif child is None or isinstance(child, np.ndarray | np.generic):
                size += _SLOT if child is None else _RESULT + child.nbytes
            else:
                raise RefusedPickleError(f"the pickle holds {describe(child)} where data should be")
            self._check(size, numbers)
        self._check(size, numbers)
        self._known[id(container)] = size, numbers, levels
        return size, numbers, levels

    def _check(self, size: int, numbers: int) -> None:
        for bytes_, limit in ((size, self._budget), (size + numbers, self._budget + REPEATED)):
            if bytes_ > limit:
                raise RefusedPickleError(f"the pickle repeats its content: as a tree it takes more than {limit} bytes")


def _children(container: Any) -> Iterable[Any]:
    if type(container) is dict:
        return (part for item in container.items() for part in item)
    return (container.attributes,) if type(container) is SampleRecord else container
