"""Curves of other trainers, turned into the results format: ``joyful import FORMAT SOURCE --out FOLDER``.

One file for each format. A format is a module with SUMMARY (a line for --help), HELP (the whole explanation),
`add_arguments(parser)` and `read(source, arguments) -> list[ImportedRun]`, which raises InputError; its name is entered here.
Everything else (checking that runs can be told apart, writing them whole or not at all) is the same for all: `runs`.
"""

from __future__ import annotations

#: Name on the command line -> module, imported when it is asked for.
FORMATS: dict[str, str] = {"csv": "joyful.analysis.importers.csv_table"}
