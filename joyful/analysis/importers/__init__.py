"""Import curves of other training programs: ``joyful import FORMAT SOURCE --out FOLDER``.

Each format is a module with SUMMARY (one line for --help), HELP (the full explanation), `add_arguments(parser)` and
`read(source, arguments) -> list[ImportedRun]`, which raises InputError for bad input. Register a new format in FORMATS.
The module `runs` writes the runs of all formats.
"""

from __future__ import annotations

#: Name on the command line -> module. The command line imports it on demand.
FORMATS: dict[str, str] = {"csv": "joyful.analysis.importers.csv_table"}
