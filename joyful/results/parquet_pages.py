"""What a Parquet file of unknown origin would take in memory, by its footer and by the heads of its pages.

A footer may lie: 46 KB of zstd hold a text of 1.5 GB in a page that the footer announces as 100 bytes, and the decoder makes room
for what the page says. So the heads of compressed pages are read here, and their sizes added up, before anything is decoded.
pyarrow cannot be asked: what it says of a column ends the process where the footer is damaged (row_group(0).column(0)).

Both are structs in Thrift's compact protocol: a byte of field step and kind, then the value; integers are zigzag varints.
"""

from __future__ import annotations

import functools
from typing import Any

#: Bytes of a footer; parsed, it takes many times as much memory. Ours has four thousand.
MAXIMUM_FOOTER = 2**24
#: Pages of a column that are looked at; no honest file of the sizes that are read has as many.
MAXIMUM_PAGES = 100_000

_MAGIC = b"PAR1"
_BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAXIMUM_DEPTH = 16

# fields of parquet.thrift
_GROUPS = 4  # of FileMetaData
_COLUMNS, _GROUP_BYTES = 1, 2  # of RowGroup
_COLUMN = 3  # of ColumnChunk: its ColumnMetaData
_CODEC, _UNCOMPRESSED, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = 4, 6, 7, 9, 11  # of ColumnMetaData
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED = 2, 3  # of PageHeader

#: What is kept of a footer, nested as the file is; everything else is passed over.
_FOOTER: dict[int, Any] = {_GROUPS: [{_COLUMNS: [{_COLUMN: {}}]}]}


def decoded_bytes(data: bytes) -> int:
    """Bytes that the footer of the file `data` announces, or its pages after decompression, whichever are more.

    Raises ValueError where it is no such file, its footer is too long, or a column lies outside the file.
    """
    length = int.from_bytes(data[-8:-4], "little")
    if len(data) < 12 or data[-4:] != _MAGIC or not 0 < length <= min(MAXIMUM_FOOTER, len(data) - 12):
        raise ValueError(f"a footer of at most {MAXIMUM_FOOTER} bytes was expected")
    footer = data[-8 - length : -8]
    announced, plain, compressed = (_known_columns if length <= _REMEMBERED else _columns)(footer)
    return max(announced, plain + sum(_pages_of(data, column) for column in compressed))


def _columns(footer: bytes) -> tuple[int, int, tuple[dict[int, int], ...]]:
    """Bytes that its row groups announce, bytes of its columns that are not compressed, and the others' ColumnMetaData."""
    groups = _struct(footer, 0, _FOOTER, 0)[0].get(_GROUPS, [])
    chunks = [chunk.get(_COLUMN, {}) for group in groups for chunk in group.get(_COLUMNS, [])]
    announced = sum(max(0, group.get(_GROUP_BYTES, 0)) for group in groups)
    plain = sum(max(0, chunk.get(_UNCOMPRESSED, 0)) for chunk in chunks if not chunk.get(_CODEC))
    return announced, plain, tuple(chunk for chunk in chunks if chunk.get(_CODEC))


#: The runs of a sweep have few different footers, and to read one takes as long as to read the rest of a small history.
_REMEMBERED = 2**15
_known_columns = functools.lru_cache(maxsize=64)(_columns)


def _pages_of(data: bytes, column: dict[int, Any]) -> int:
    """Bytes of a column's pages after decompression, by their heads."""
    start = column.get(_DATA_PAGE, 0)
    if column.get(_DICTIONARY_PAGE):
        start = min(start, column[_DICTIONARY_PAGE])
    end = start + column.get(_COMPRESSED, -1)
    if not 0 < start <= end <= len(data):
        raise ValueError("a column lies outside the file")
    size = pages = 0
    while start < end:
        head, start = _struct(data, start, {}, 0)
        uncompressed, compressed = head.get(_PAGE_UNCOMPRESSED, -1), head.get(_PAGE_COMPRESSED, -1)
        pages += 1
        if uncompressed < 0 or compressed < 0 or pages > MAXIMUM_PAGES:
            raise ValueError("a page has no size")
        size, start = size + uncompressed, start + compressed
    return size


def _struct(data: bytes, at: int, kept: dict[int, Any] | None, depth: int) -> tuple[dict[int, Any], int]:
    """The integers of the struct at `at` by field, with the structs in it that `kept` names; and where it ends. None: nothing."""
    if depth > _MAXIMUM_DEPTH:
        raise ValueError("it is nested too deep")
    found: dict[int, Any] = {}
    field = 0
    try:
        while head := data[at]:
            at += 1
            kind = head & 0x0F
            if head >> 4:
                field += head >> 4
            else:
                field, at = _varint(data, at)
                field = (field >> 1) ^ -(field & 1)
            if kind in _INTEGERS:
                value = data[at]
                if value < 0x80:
                    at += 1
                else:
                    value, at = _varint(data, at)
                if kept is not None and field not in kept:
                    found[field] = (value >> 1) ^ -(value & 1)
            elif kept is not None and field in kept:
                value, at = _value(data, at, kind, kept[field], depth + 1)
                if value is not None:
                    found[field] = value
            else:
                _, at = _value(data, at, kind, None, depth + 1)
    except IndexError:
        raise ValueError("it ends early") from None
    return found, at + 1


def _value(data: bytes, at: int, kind: int, kept: Any, depth: int) -> tuple[Any, int]:
    """A value of that kind, kept where it is the struct (a dict) or the list of structs that `kept` says; and where it ends."""
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        wanted = kept if isinstance(kept, dict) else None
        found, at = _struct(data, at, wanted, depth)
        return (None if wanted is None else found), at
    if kind in _LISTS:
        return _list(data, at, kept[0] if isinstance(kept, list) else None, depth)
    if kind in (1, 2):  # true and false are kinds of their own
        return None, at
    if kind in _INTEGERS:
        return None, _varint(data, at)[1]
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    raise ValueError("it holds a kind of value that no Parquet file has")


def _list(data: bytes, at: int, kept: dict[int, Any] | None, depth: int) -> tuple[list[Any] | None, int]:
    head = data[at]
    at += 1
    count, kind = head >> 4, head & 0x0F
    if count == 15:
        count, at = _varint(data, at)
    if count > len(data) - at or (kept is not None and kind != _STRUCT):  # every element takes a byte at least
        raise ValueError("it holds a list that no Parquet file has")
    values = []
    for _ in range(count):
        if kind in (1, 2):  # in a list, true and false take a byte
            at += 1
            continue
        value, at = _value(data, at, kind, kept, depth + 1)
        if kept is not None:
            values.append(value)
    return (None if kept is None else values), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it holds an endless number")
