"""Runs of NumPy scalars come back exactly, and so does what stands between them and what refers to them."""

from __future__ import annotations

import pickle
import pickletools
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from joyful.data.cogmen.restricted_pickle import loads
from joyful.data.cogmen.scalars import read_scalars
from joyful.records import InputError

PROTOCOLS = range(6)


def same(got: Any, expected: Any) -> bool:
    """Whether two nested lists have equal values of the same types; NaN equals NaN."""
    if isinstance(expected, list):
        return type(got) is list and len(got) == len(expected) and all(map(same, got, expected))
    return type(got) is type(expected) and bool(got == expected or (got != got and expected != expected))


def values_of(dtype: str, n: int) -> list[Any]:
    draw = np.random.default_rng(n)
    if dtype[1] == "f":
        return list(draw.normal(size=n).astype(dtype))
    info = np.iinfo(dtype)
    return list(draw.integers(info.min, info.max, size=n, dtype=np.dtype(dtype[1:]), endpoint=True).astype(dtype))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f8", "<i8", "<i2", "<u4", "|u1", "|i1"])
def test_lists_of_scalars_come_back(dtype: str, protocol: int) -> None:
    """2,500 exceed a block of the reader, a batch of the pickler and the short memo indices."""
    rows = [values_of(dtype, n) for n in (1, 2, 300, 2500)]
    assert same(loads(pickle.dumps(rows, protocol), "data.pkl"), rows)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_types_may_alternate(protocol: int) -> None:
    draw = np.random.default_rng(0)
    mixed: list[Any] = [kind(draw.integers(100)) for kind in (np.float64, np.float32, np.int64, float, int) * 50]
    mixed += [np.bool(True), np.str_("a"), np.float64("nan"), None, *[np.float64(1.5)] * 20]
    assert same(loads(pickle.dumps(mixed, protocol), "data.pkl"), mixed)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_scalar_may_be_used_again(protocol: int) -> None:
    first = [np.float64(x) for x in range(300)]
    rows = [first, [first[5], first[299], np.float64(7), first[0]], first]
    got = loads(pickle.dumps(rows, protocol), "data.pkl")
    assert same(got, rows)
    assert got[1][0] is got[0][5]
    assert got[2] is got[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_without_unused_memo_entries_comes_back(protocol: int) -> None:
    rows = [values_of("<f8", 700), values_of("<f4", 700)]
    assert same(loads(pickletools.optimize(pickle.dumps(rows, protocol)), "data.pkl"), rows)


def test_most_scalars_are_read_in_runs() -> None:
    """A list of 1,000 has two runs at most: the first scalar writes the entries that the others read."""
    data = pickle.dumps([np.float64(x) for x in range(1000)], 4)
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        values, end = read_scalars(*arguments)
        calls.append(len(values))
        return values, end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joyful.data.cogmen.restricted_pickle.read_scalars", counted)
        loads(data, "data.pkl")
    assert sum(calls) == 999
    assert len(calls) <= 2


def test_memo_entries_out_of_order_mean_what_they_say() -> None:
    """No pickler writes them. Two scalars swap their entries, and the second one is read at the end."""
    data = pickle.dumps([np.float64(x) for x in range(20)], 3)
    operations = list(pickletools.genops(data))
    stored = [
        at + 1 for (before, *_), (op, _, at) in pairwise(operations) if (before.name, op.name) == ("REDUCE", "BINPUT")
    ]
    swapped = bytearray(data)
    first, second = stored[10], stored[12]
    swapped[first], swapped[second] = data[second], data[first]
    changed = bytes(swapped[:-1]) + b"h" + bytes([data[second]]) + b"\x86."
    expected = pickle.loads(changed)
    assert same(list(loads(changed, "data.pkl")), list(expected))


def test_an_argument_that_is_read_again_is_refused() -> None:
    """No pickler writes this. The memo entries of arguments are not kept."""
    data = pickle.dumps([np.float64(x) for x in range(20)], 4)
    entry = next(argument for op, argument, _ in pickletools.genops(data) if op.name == "BINGET")
    last = sum(op.name == "MEMOIZE" for op, _, _ in pickletools.genops(data)) - 1
    assert entry < last
    frame = len(data) - 11 + 2  # PROTO takes 2 bytes, FRAME 9
    changed = data[:3] + frame.to_bytes(8, "little") + data[11:-1] + b"h" + bytes([last - 2]) + b"."
    with pytest.raises(InputError, match="reads an argument of a NumPy scalar"):
        loads(changed, "data.pkl")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_truncation_is_refused(protocol: int) -> None:
    data = pickle.dumps([np.float64(x) for x in range(12)], protocol)
    for length in range(len(data)):
        with pytest.raises(InputError, match="not a valid pickle"):
            loads(data[:length], "data.pkl")
