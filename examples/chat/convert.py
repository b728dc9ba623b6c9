"""Convert the text export of a chat to a table of dialogues for data=dialogues.

    python examples/chat/convert.py examples/chat/export.txt chat.csv --labels examples/chat/labels.csv

A message begins with its time and its author, as messengers write it: ``[02/03/2026, 08:14:00] Mia: Hello``, or
``02/03/2026, 08:14 - Mia: Hello``. Further lines belong to the message before them. Lines without an author are notes of the
messenger and are left out. After a pause a new dialogue begins.

Messages are numbered from 1 in the table (column message). The file of labels has the columns message and label; label
some messages in a spreadsheet, and leave the others out. They are context.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

#: Time, author and text of the first line of a message. Some exports have invisible marks of direction.
MESSAGE = re.compile(r"\u200e?\[?(\d+[./-]\d+[./-]\d+),? (\d+:\d+(?::\d+)?)(?:\]| -) ([^:]+): (.*)")
NOTE = re.compile(r"\u200e?\[?\d+[./-]\d+[./-]\d+,? \d+:\d+")
DATES = ("%d/%m/%Y", "%d.%m.%Y", "%d/%m/%y", "%d.%m.%y", "%Y-%m-%d")


def time_of(date: str, clock: str) -> datetime:
    """Return the time of a message. The day is before the month, or the year is first."""
    seconds = ":%S" if clock.count(":") == 2 else ""
    for form in DATES:
        try:
            return datetime.strptime(f"{date} {clock}", f"{form} %H:%M{seconds}")
        except ValueError:
            continue
    raise SystemExit(f"{date} {clock}: expected a time such as 02/03/2026 08:14; add its form to DATES in {__file__}")


def messages(lines: Iterable[str]) -> Iterator[tuple[datetime, str, str]]:
    """Yield the time, author and text of each message."""
    current: tuple[datetime, str, str] | None = None
    for line in lines:
        text = line.rstrip("\n")
        if match := MESSAGE.match(text):
            if current:
                yield current
            current = (time_of(match[1], match[2]), match[3].strip(), match[4])
        elif not NOTE.match(text) and current:
            current = (current[0], current[1], f"{current[2]}\n{text}".strip())
    if current:
        yield current


def table(found: Iterable[tuple[datetime, str, str]], labels: dict[str, str], pause: timedelta) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    last, dialogue, place = None, 0, 0
    for number, (time, author, text) in enumerate(found, start=1):
        if last is None or time - last > pause:
            dialogue, place = dialogue + 1, 0
        last, place = time, place + 1
        yield [str(number), f"talk{dialogue:04d}", str(place), author, text, labels.get(str(number), "")]


def main() -> None:
    """Convert a file."""
    parser = argparse.ArgumentParser(description="Convert the text export of a chat to a table of dialogues.")
    parser.add_argument("export", type=Path, help="text file of the messenger")
    parser.add_argument("out", type=Path, help="CSV file to write")
    parser.add_argument("--labels", type=Path, help="CSV file with the columns message and label")
    parser.add_argument("--pause", type=float, default=60, help="minutes without a message that end a dialogue")
    options = parser.parse_args()
    labels: dict[str, str] = {}
    if options.labels:
        with options.labels.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"message", "label"} <= set(reader.fieldnames or ()):
                sys.exit(
                    f"{options.labels}: expected the columns message and label with a comma between them, got {reader.fieldnames}"
                )
            labels = {(row["message"] or "").strip(): (row["label"] or "").strip() for row in reader}
    with options.export.open(encoding="utf-8-sig") as stream:
        rows = list(table(messages(stream), labels, timedelta(minutes=options.pause)))
    if not rows:
        sys.exit(f"{options.export}: expected lines such as [02/03/2026, 08:14:00] Mia: Hello, got none")
    if unknown := sorted(labels.keys() - {row[0] for row in rows}):
        sys.exit(f"{options.labels}: expected message numbers from 1 to {len(rows)}, got {', '.join(unknown[:5])}")
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["message", "dialogue", "place", "speaker", "text", "label"])
        writer.writerows(rows)
    n_labels = sum(bool(row[-1]) for row in rows)
    print(f"{options.out}: {len(rows)} messages in {len({row[1] for row in rows})} dialogues, {n_labels} with a label")


if __name__ == "__main__":
    main()
