"""Runs of NumPy scalars in a pickle, which lists of scalars consist of.

A pickler writes each scalar as a call of numpy.scalar with the same two memo entries, the function and the data type:

    GET function, GET data type, BYTES content [PUT] TUPLE2 [PUT] REDUCE [PUT]

This module reads as many of these as follow each other, of integers and floats with 2, 4 or 8 bytes.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from joyful.data.cogmen.pickle_globals import SCALAR, DtypeRecord

#: Memo entry of an argument of a scalar. Picklers write such entries, but never read them.
ARGUMENT = object()

_GET, _PUT = rb"(h.|j....)", rb"(\x94|q.|r....)?"
_CONTENT = rb"[CU](?:\x08(.{8})|\x04(.{4})|\x02(.{2}))"
_ITEM = re.compile(_GET + _GET + _CONTENT + _PUT + rb"\x86" + _PUT + rb"R" + _PUT, re.DOTALL)
_CONTENTS, _PUTS = (3, 4, 5), (6, 7, 8)  # groups of the pattern
_BLOCK = 1000  # items compared at once; picklers append 1000 elements at once


def read_scalars(data: bytes, start: int, memo: list[Any]) -> tuple[list[np.generic], int]:
    """Read a run of scalars.

    Args:
        data: The pickle.
        start: Position of the first GET.
        memo: The memo of the pickle. The entries that the run writes are appended.

    Returns:
        A tuple (values, end): the scalars, and the position after the run. Without such a run, no scalar and `start`.
    """
    values: list[np.generic] = []
    position = start
    while match := _ITEM.match(data, position):
        dtype = _dtype(match, memo)
        block = _equal_items(data, match, len(memo))
        if dtype is None or not len(block):
            break
        content = slice(*(place - position for place in match.span(_content_group(match))))
        found = list(np.frombuffer(np.ascontiguousarray(block[:, content]), dtype))
        written = sum(match[group] is not None for group in _PUTS)
        entries: list[Any] = [ARGUMENT] * (written * len(found))
        if match[_PUTS[-1]] is not None:
            entries[written - 1 :: written] = found
        memo += entries
        values += found
        position += block.size
    return values, position


def _equal_items(data: bytes, match: re.Match[bytes], following: int) -> np.ndarray:
    """Return the items from `match` on that differ only in their content and in their memo indices, as rows of bytes.

    Args:
        data: The pickle.
        match: The first item.
        following: The next memo index. A pickler numbers its entries in their order; other items are left out.
    """
    start, width = match.start(), match.end() - match.start()
    count = min(_BLOCK, (len(data) - start) // width)
    block = np.frombuffer(data, np.uint8, count * width, start).reshape(count, width)
    fixed = np.ones(width, dtype=bool)
    first, end = match.span(_content_group(match))
    fixed[first - start : end - start] = False
    equal = np.ones(count, dtype=bool)
    puts = [group for group in _PUTS if match[group] is not None]
    for number, group in enumerate(puts):
        first, end = match.start(group) + 1 - start, match.end(group) - start  # after the opcode
        if first < end:
            fixed[first:end] = False
            powers = 256 ** np.arange(end - first)
            equal &= (block[:, first:end] * powers).sum(axis=1) == following + number + len(puts) * np.arange(count)
    equal &= (block[:, fixed] == block[0, fixed]).all(axis=1)
    return block[: count if equal.all() else int(np.argmin(equal))]


def _content_group(match: re.Match[bytes]) -> int:
    return next(group for group in _CONTENTS if match[group] is not None)


def _dtype(match: re.Match[bytes], memo: list[Any]) -> np.dtype[Any] | None:
    """Return the data type of an item, if it is one of integers or floats and the item calls numpy.scalar."""
    function, record = (_entry(memo, match[group]) for group in (1, 2))
    if function is not SCALAR or type(record) is not DtypeRecord or record.dtype.kind not in "iuf":
        return None
    first, end = match.span(_content_group(match))
    return record.dtype if record.dtype.itemsize == end - first else None


def _entry(memo: list[Any], get: bytes) -> Any:
    index = get[1] if len(get) == 2 else int(struct.unpack("<I", get[1:])[0])
    return memo[index] if index < len(memo) else None
