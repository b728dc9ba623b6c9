"""Compute the decoded size of a Parquet file of unknown origin from its footer and page headers.

A footer can be wrong: 46 KB of zstd can hold a text of 1.5 GB in a page that the footer declares as 100 bytes, and the
decoder allocates what the page header declares. This module therefore adds up the sizes in the headers of all
compressed pages before anything is decoded.

pyarrow cannot do this. It exposes no page headers, has no limit on what its decoder allocates, and ends the process when
it reads the column metadata of some damaged footers: of 1,500 histories with one to three changed bytes in the footer,
`row_group(i).column(j)` aborted in 8 and `FileMetaData.to_dict` in 6 (pyarrow 26.0.1, November 2026); this module and
`joyful.results.tables.decode` in none. To refuse compressed columns would be simpler, but pandas compresses the
histories that other programs write, and the text of prepared data is compressed. A history of this package costs 2 us
(a cached footer; 0.3 ms uncached) of the 2 ms of its decoding, one that pandas has compressed 0.25 ms.

Footer and page headers are structs in Thrift's compact protocol: a byte with the field's delta and type, then the
value. Integers are zigzag varints.
"""

from __future__ import annotations

import functools
from typing import Any

#: Maximum size of a footer in bytes. A parsed footer takes many times as much memory. This
#: package writes footers of 4,000 bytes.
MAXIMUM_FOOTER = 2**24
#: Maximum number of pages of a column. No valid file within the size limits has as many.
MAXIMUM_PAGES = 100_000

_MAGIC = b"PAR1"
_BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAXIMUM_DEPTH = 16

# field numbers in parquet.thrift
_GROUPS = 4  # of FileMetaData
_COLUMNS, _GROUP_BYTES = 1, 2  # of RowGroup
_COLUMN = 3  # of ColumnChunk: its ColumnMetaData
_CODEC, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = 4, 5, 6, 7, 9, 11  # of ColumnMetaData
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED = 2, 3  # of PageHeader

#: The fields to keep from a footer, nested like the footer; all others are skipped.
_FOOTER: dict[int, Any] = {_GROUPS: [{_COLUMNS: [{_COLUMN: {}}]}]}


def decoded_bytes(data: bytes) -> int:
    """Return the decoded size of a Parquet file in bytes.

    Args:
        data: The content of the file.

    Returns:
        The larger of the size that the footer declares and the sum of the page sizes after decompression.

    Raises:
        ValueError: If this is not a Parquet file, its footer is too long, or a column lies outside the file.
    """
    length = int.from_bytes(data[-8:-4], "little")
    if len(data) < 12 or data[-4:] != _MAGIC or not 0 < length <= min(MAXIMUM_FOOTER, len(data) - 12):
        raise ValueError(f"a footer of at most {MAXIMUM_FOOTER} bytes was expected")
    footer = data[-8 - length : -8]
    announced, plain, compressed = (_cached_columns if length <= _MAXIMUM_CACHED_FOOTER else _columns)(footer)
    return max(announced, plain + sum(_pages_of(data, column) for column in compressed))


def _columns(footer: bytes) -> tuple[int, int, tuple[dict[int, int], ...]]:
    """Return the declared bytes of all row groups, the bytes of uncompressed columns, and metadata of the others."""
    groups = _struct(footer, 0, _FOOTER, 0)[0].get(_GROUPS, [])
    chunks = [chunk.get(_COLUMN, {}) for group in groups for chunk in group.get(_COLUMNS, [])]
    announced = sum(max(0, group.get(_GROUP_BYTES, 0)) for group in groups)
    plain = sum(max(0, chunk.get(_UNCOMPRESSED, 0)) for chunk in chunks if not chunk.get(_CODEC))
    return announced, plain, tuple(chunk for chunk in chunks if chunk.get(_CODEC))


#: Maximum size in bytes of a footer whose result is cached. The runs of a sweep have few different footers, and parsing
#: one takes as long as reading the rest of a small history.
_MAXIMUM_CACHED_FOOTER = 2**15
_cached_columns = functools.lru_cache(maxsize=64)(_columns)


def _pages_of(data: bytes, column: dict[int, Any]) -> int:
    """Return the bytes of a column's pages after decompression, according to their headers."""
    if column.get(_VALUES) == 0:
        return 0  # an empty row group has no data page, and its decoder reads none
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
    """Return the kept fields of the struct at offset `at`, and the offset of its end.

    Integers are kept by field number, nested structs only if `kept` names them. If `kept` is None, nothing is kept.
    """
    if depth > _MAXIMUM_DEPTH:
        raise ValueError("it is nested too deeply")
    values: dict[int, Any] = {}
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
                    if field in values:  # other parsers could take another one of the two
                        raise ValueError("it contains a field twice")
                    values[field] = (value >> 1) ^ -(value & 1)
            elif kept is not None and field in kept:
                value, at = _value(data, at, kind, kept[field], depth + 1)
                if value is not None:
                    values[field] = value
            else:
                _, at = _value(data, at, kind, None, depth + 1)
    except IndexError:
        raise ValueError("it ends early") from None
    return values, at + 1


def _value(data: bytes, at: int, kind: int, kept: Any, depth: int) -> tuple[Any, int]:
    """Return a value of type `kind`, and the offset of its end.

    The value is None unless `kept` asks for it: a dict asks for a struct, a list for a list of structs.
    """
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        wanted = kept if isinstance(kept, dict) else None
        values, at = _struct(data, at, wanted, depth)
        return (None if wanted is None else values), at
    if kind in _LISTS:
        return _list(data, at, kept[0] if isinstance(kept, list) else None, depth)
    if kind in (1, 2):  # true and false are encoded in the type
        return None, at
    if kind in _INTEGERS:
        return None, _varint(data, at)[1]
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    raise ValueError("it contains a type of value that no Parquet file has")


def _list(data: bytes, at: int, kept: dict[int, Any] | None, depth: int) -> tuple[list[Any] | None, int]:
    head = data[at]
    at += 1
    count, kind = head >> 4, head & 0x0F
    if count == 15:
        count, at = _varint(data, at)
    if count > len(data) - at or (kept is not None and kind != _STRUCT):  # every element takes at least one byte
        raise ValueError("it contains a list that no Parquet file has")
    values = []
    for _ in range(count):
        if kind in (1, 2):  # in a list, true and false take a byte each
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
            raise ValueError("it contains an integer of too many bytes")
