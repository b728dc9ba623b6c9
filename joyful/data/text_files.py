"""Read text files of unknown origin: their encoding, lines and separators, found or named in the settings."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from joyful.records import InputError
from joyful.results.csv_text import MAXIMUM_RECORD, line_error, quoted

#: Maximum size of a text file in bytes.
MAX_TEXT_BYTES = 2**30

#: Names of separators, as the setting data.table.separator has them.
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}

#: Byte order marks. That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_FOR_FILES = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape")
_CHUNK = 2**16
_LINE_END = re.compile("\r\n|\r|\n")


def text_lines(path: Path, encoding: str | None) -> Iterator[str]:
    """Yield the lines of a text file with their line ends, cut after MAXIMUM_RECORD + 1 characters.

    A byte order mark determines the encoding. Without one it is `encoding`, by default UTF-8.

    Args:
        path: The file.
        encoding: The setting data.table.encoding.

    Raises:
        InputError: If the file cannot be read, is too large, or is not text in the encoding. The message names the byte,
            its line, and a value for the setting.
    """
    try:
        if (size := path.stat().st_size) > MAX_TEXT_BYTES:
            raise InputError(
                f"{path}: expected at most {MAX_TEXT_BYTES} bytes, got {size}; use Parquet, or several files"
            )
        with path.open("rb") as binary:
            start = binary.read(4)
            binary.seek(0)
            used = encoding_of(start, encoding)
            with io.TextIOWrapper(binary, encoding=used, errors="strict", newline="") as stream:
                read = functools.partial(stream.readline, MAXIMUM_RECORD + 1)
                for number, line in enumerate(iter(read, ""), start=1):
                    if "\0" in line:
                        raise line_error(path, number, f"a NUL character is not text; {_remedy(path, start, used)}")
                    yield line
    except UnicodeError:
        raise _undecodable(path, start, used) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check data.root and the permissions") from None


def encoding_of(start: bytes, encoding: str | None) -> str:
    """Return the encoding of a file.

    Args:
        start: Its first four bytes.
        encoding: The encoding where there is no byte order mark; None: UTF-8.

    Raises:
        InputError: If Python does not know the encoding.

    Example:
        >>> encoding_of(b"\\xff\\xfea\\x00", None), encoding_of(b"text", "cp1252")
        ('utf-16', 'cp1252')
    """
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if encoding is None:
        return "utf-8"
    try:
        known = codecs.lookup(encoding).name.replace("-", "_") not in _NOT_FOR_FILES
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs that are not of text
    except (LookupError, ValueError):
        known = False
    if not known:
        raise InputError(
            f"data.table.encoding: expected an encoding such as utf-8, cp1252, latin-1 or utf-16-le, got"
            f" {quoted(encoding)}; set data.table.encoding=cp1252"
        )
    return encoding


def find_separator(path: Path, header: str, names: Collection[str], separator: str | None) -> str:
    """Return the separator of a CSV file.

    Args:
        path: The file, for messages.
        header: Its first line.
        names: Lower-case names and beginnings of names of the columns that the settings know.
        separator: The setting data.table.separator.

    Returns:
        The named separator. Otherwise the only one that divides the header; of several, the one that gives the most
        names that are known.

    Raises:
        InputError: If several separators are equally likely.
    """
    if separator is not None:
        return SEPARATORS[separator]
    known = {}
    for name, character in SEPARATORS.items():
        try:
            fields = next(csv.reader([header], delimiter=character), [])
        except csv.Error:
            continue
        if len(fields) > 1:
            known[name] = sum(field.strip().casefold().startswith(tuple(names)) for field in fields)
    best = [name for name, count in known.items() if count == max(known.values())]
    if len(best) > 1:
        options = " or ".join(f"data.table.separator={name}" for name in best)
        raise line_error(path, 1, f"the header can be separated by {' or by '.join(best)}; set {options}")
    return SEPARATORS[best[0]] if best else ","


def _undecodable(path: Path, start: bytes, encoding: str) -> InputError:
    """Return the error about the first byte that is not text in the encoding."""
    decoder, lines = codecs.getincrementaldecoder(encoding)("strict"), 1
    last = ""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            try:
                text = last + decoder.decode(chunk)
            except UnicodeDecodeError as error:
                before = last + error.object[: error.start].decode(encoding, "ignore")
                line = lines + len(_LINE_END.findall(before))
                wrong = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
                return line_error(path, line, f"{wrong}; {_remedy(path, start, encoding)}")
            except UnicodeError:
                break
            last = text[-1:] if text.endswith("\r") else ""  # the next chunk may begin with \n
            lines += len(_LINE_END.findall(text.removesuffix("\r")))
    return line_error(path, lines, f"the text is not {encoding}; {_remedy(path, start, encoding)}")


def _remedy(path: Path, start: bytes, encoding: str) -> str:
    """Return advice about the encoding."""
    if encoding.startswith(("utf-16", "utf-32")) and encoding_of(start, None) != "utf-8":
        return "the file is damaged or cut; save it again, in UTF-8"
    if 0 in start[:2]:
        likely = "utf-16-be" if start[0] == 0 else "utf-16-le"
    else:
        likely = next(
            (name for name in ("utf-8", "cp1252", "latin-1") if name != encoding and _decodes(path, name)), ""
        )
    if not likely or likely == encoding:
        return "save the file again, in UTF-8"
    about = {"cp1252": " (Windows, Western Europe)", "latin-1": " (ISO 8859-1)"}.get(likely, "")
    return f"set data.table.encoding={likely}{about} or the encoding of the file, or save it in UTF-8"


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                if b"\0" in chunk:
                    return False
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True
