"""The command `joyful schema`: print the schema of all settings, for editors or as a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from joyful.records import InputError, print_error

EXAMPLE = """\
In an editor whose YAML extension knows JSON schemas (VS Code: redhat.vscode-yaml), the first line of a file names the schema:

  joyful schema --out joyful.schema.json
  # yaml-language-server: $schema=joyful.schema.json

Exit codes: 0 success, 2 bad input.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog="joyful schema",
        description="Print the JSON schema of files with settings: names, ranges, choices and descriptions.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", type=Path, metavar="FILE", help="write to this file instead of standard output")
    p.add_argument("--section", help="section at the root of the file, such as weights for a file of a group weights/")
    p.add_argument("--plugins", action="store_true", help="include what other packages register; needs torch")
    p.add_argument("--markdown", action="store_true", help="print the reference of all settings as Markdown")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The arguments; None: those of the process.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    options = parser().parse_args(arguments)
    try:
        text = _text(options)
        if options.out is None:
            sys.stdout.write(text)
        else:
            _write(options.out, text)
    except InputError as error:
        print_error(error)
        return 2
    return 0


def _text(options: argparse.Namespace) -> str:
    if options.markdown:
        if options.section or options.plugins:
            raise InputError("--markdown: expected no --section and no --plugins; leave them out")
        from joyful.schema.reference import reference

        return reference()
    from joyful.schema.editors import json_schema

    return json.dumps(json_schema(options.section, options.plugins), indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {path}: the file cannot be written ({error.strerror}); choose another path") from None
