"""Repair text that contains Windows-1252 bytes as control characters, or surrogates.

A file in Windows-1252 that was read as Latin-1 and saved as UTF-8 has the control characters U+0080 to U+009F in the
places of quotation marks, dashes and the euro sign. Text encoders and tokenizers do not know these characters. The
Unicode standard gives them no meaning in prose, so the mapping is safe: U+0092 becomes U+2019, as byte 92 in
Windows-1252. The bytes 81, 8D, 8F, 90 and 9D are undefined there, and their characters stay as they are.

JSON and pickles can hold a half of a surrogate pair, such as "\\ud83d" where a text was cut within an emoji.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

_UNDEFINED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
_MAPPED = {code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in _UNDEFINED}
_CONTROL = re.compile(f"[{''.join(map(chr, _MAPPED))}]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_log = logging.getLogger(__name__)


def repair(texts: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Map Windows-1252 control characters to the characters that were meant.

    Args:
        texts: N texts.

    Returns:
        A tuple (texts, count): the N texts, and the number of characters that were mapped. Equal texts that were mapped are
        one object.

    Source:
        The table of Windows-1252, https://encoding.spec.whatwg.org/index-windows-1252.txt

    Example:
        >>> repair(["it\\x92s", "caf\\xe9"])
        (('it\u2019s', 'caf\u00e9'), 1)
    """
    found = {text: len(_CONTROL.findall(text)) for text in set(texts)}
    mapped = {text: text.translate(_MAPPED) for text, count in found.items() if count}
    return tuple(mapped.get(text, text) for text in texts), sum(found[text] for text in texts)


def without_surrogates(text: str) -> str:
    """Return text with surrogate pairs joined and lone surrogates replaced by U+FFFD.

    Tokenizers and files in UTF-8 reject surrogates.

    Args:
        text: The text.

    Example:
        >>> print(ascii(without_surrogates("\\ud83d\\ude00, cut: \\ud83d")))
        '\\U0001f600, cut: \\ufffd'
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def log_repairs(path: Path, count: int) -> None:
    """Log how many characters of a file were mapped. Nothing is logged if there were none."""
    if count:
        _log.info(
            "%s: mapped %d control %s (U+0080 to U+009F) to the characters of Windows-1252 at their places",
            path,
            count,
            "character" if count == 1 else "characters",
        )
