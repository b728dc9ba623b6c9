"""Name files that are not pickles, and the damage of files that were pickles, with the remedy of each."""

from __future__ import annotations

import re
import struct

# First bytes -> kind of file and remedy.
_MAGIC = {
    b"\x1f\x8b": "compressed with gzip: unpack it with gunzip",
    b"BZh": "compressed with bzip2: unpack it with bunzip2",
    b"\xfd7zXZ": "compressed with xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it with unzstd",
    **dict.fromkeys(
        (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), "compressed with zlib: unpack it with zlib-flate"
    ),
    b"\x04\x22\x4d\x18": "compressed with lz4: unpack it with unlz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it with 7z x",
    b"Rar!": "a RAR archive: unpack it with unrar",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull in the repository that it came from",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: read it with h5py and write its arrays as a pickle",
    b"\x93NUMPY": "a NumPy .npy file, one array: write a pickle of train, dev and test",
    b"MATLAB 5.0": "a MATLAB file: read it with scipy.io.loadmat and write its arrays as a pickle",
    b"PAR1": "a Parquet file: write a pickle of train, dev and test",
    # the number with which torch.save began its files before torch 1.6
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.": (
        "from torch.save (the format before torch 1.6): load it in torch and write it with pickle.dump"
    ),
}
_ZIP = b"PK\x03\x04"
_TEXT_BYTES = 4096
_FIELDS = re.compile(r"[^,;\t]*([,;\t])[^,;\t]*(?:\1[^,;\t]*)*")


def foreign_kind(data: bytes) -> str | None:
    """Return what a file is, with the remedy, if its first bytes show that it is not a pickle.

    Args:
        data: The content of the file.

    Example:
        >>> foreign_kind(b"<html>")
        'a web page or XML: the download failed, download it again'
    """
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data.startswith(_ZIP):
        return _kind_of_zip(data)
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return "a web page or XML: the download failed, download it again"
    if start.startswith((b"{", b"[")):
        return "JSON text: write it with pickle.dump, as a dict of train, dev and test"
    if data.startswith(b"\xef\xbb\xbf"):
        return "text with a byte order mark: write a pickle of train, dev and test"
    return None


def damage(data: bytes, at_end: bool) -> str | None:
    """Return what happened to a file that is not a valid pickle, with the remedy, if its bytes show it.

    Args:
        data: The content of the file.
        at_end: Whether the reader came to the end of the file.
    """
    if not data:
        return "it is empty; get the file again"
    if kind := _kind_of_text(data) or text_mode(data):
        return kind
    if len(data) >= 1024 and not any(data[-512:]):
        return "it ends with zeros, as after a download that stopped; download it again"
    if at_end and not data.endswith(b"."):
        return f"it is cut off after {len(data)} bytes; copy or download it again"
    return None


def text_mode(data: bytes) -> str | None:
    """Return the damage and its remedy if a transfer in text mode has put a carriage return before each line feed."""
    line_feeds = data.count(b"\n")
    if not line_feeds or line_feeds != data.count(b"\r\n"):
        return None
    return (
        "it has a carriage return before every line feed, as after a transfer in text mode; transfer it again in binary "
        "mode (in git: mark it as -text)"
    )


def _kind_of_zip(data: bytes) -> str:
    """Return the kind of a zip archive by the name of its first entry."""
    length = struct.unpack_from("<H", data, 26)[0] if len(data) >= 28 else 0
    name = data[30 : 30 + length]
    if name.endswith(b"/data.pkl"):
        return "from torch.save: load it in torch, convert tensors with .numpy() and write it with pickle.dump"
    if name.endswith(b".npy"):
        return "a NumPy .npz archive: read it with numpy.load and write a pickle of train, dev and test"
    if name == b"[Content_Types].xml":
        return "an Excel workbook: write a pickle of train, dev and test"
    return "a zip archive: unpack it with unzip"


def _kind_of_text(data: bytes) -> str | None:
    """Return the kind of a text file whose first line has several fields, such as CSV."""
    try:
        text = data[:_TEXT_BYTES].decode("utf-8", "strict" if len(data) <= _TEXT_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    if (
        not lines
        or lines[0].startswith(("(", "S'", "V"))
        or not all(line.replace("\t", " ").isprintable() for line in lines)
    ):
        return None
    match = _FIELDS.fullmatch(lines[0])
    if match is None:
        return None
    name = {",": "commas", ";": "semicolons", "\t": "tabs"}[match[1]]
    return f"it is text, a table separated by {name}; write a pickle of train, dev and test"
