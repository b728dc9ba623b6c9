"""The command `joyful predict`: label new dialogues with trained models.

joyful predict RUN [RUN ...] FILE [--out TABLE]
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from joyful.messages import CommandParser, print_utf8
from joyful.prediction import outputs
from joyful.prediction.inputs import ROLES
from joyful.prediction.predictor import Predictions, open_predictor
from joyful.records import InputError, print_error

#: Settings of training that say how a file is read and its text is encoded.
_SETTING = re.compile(r"data\.(table\.[\w.]+|cache|text_encoder)=(.*)", re.DOTALL)

#: What messages of other parts ask to set -> what this command takes.
_REMEDIES = (
    (re.compile(r"set data\.root=FILE_OR_FOLDER( to a table of dialogues)?"), "give a table of dialogues"),
    (re.compile(r"\bset device=(auto|cpu|cuda)\b"), r"use --device \1"),
    (re.compile(r"\bdevice=(auto|cpu|cuda)\b"), r"--device \1"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `joyful predict`.

    Args:
        arguments: Arguments of the command line, by default those of the process.

    Returns:
        The exit code: 0 success, 2 invalid input, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    settings = [match for word in words if (match := _SETTING.fullmatch(word))]
    parsed = _parser().parse_intermixed_args([word for word in words if not _SETTING.fullmatch(word)])
    logging.basicConfig(level=logging.INFO, format="joyful: %(message)s", stream=sys.stderr)
    try:
        _predict(parsed, {match[1]: match[2] for match in settings})
    except InputError as error:
        print_error(f"predict: {_with_remedies(str(error))}")
        return 2
    except KeyboardInterrupt:
        print_error("predict: interrupted by Ctrl-C; nothing was written")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="joyful predict",
        description="Label new dialogues with a trained model.\n\n"
        "RUN is the folder of a run, or of a model that joyful export wrote. The weights are those of its best\n"
        "evaluation on dev. Several runs, or a pattern in quotes, predict the mean of their probabilities.\n\n"
        "FILE is a table .csv, .tsv, .jsonl or .parquet with a row per utterance, as for data=dialogues, but one file and\n"
        "not a folder: the columns dialogue, place, speaker and text, and features if the model needs them. Labels are not\n"
        "needed. If there are some, their scores are printed.\n\n"
        "Settings of training may follow FILE: data.table.SETTING=VALUE for how it is read, data.text_encoder=FOLDER where\n"
        "the text encoder of the run is on this machine, data.cache=FOLDER for the cached vectors of texts.",
        epilog="examples:\n"
        "  joyful predict outputs/run chat.csv > labelled.csv\n"
        "  joyful predict outputs/run chat.csv --columns text=message,speaker=user --out labelled.parquet\n"
        "  joyful predict outputs/run chat.csv data.table.encoding=cp1252 > labelled.csv\n"
        "  joyful predict 'multirun/mine/*' chat.csv --out labelled.csv\n"
        "  joyful predict multirun/mine --best chat.csv --out labelled.csv\n\n"
        "The result has the rows of FILE in their order: dialogue, place, speaker, text, label if there are labels,\n"
        "predicted, and a probability for each class. Exit codes: 0 success, 2 invalid input.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", metavar="RUN", nargs="+", help="folder of a run or of an exported model, or a pattern of them")
    add("file", metavar="FILE", type=Path, help="table of the new dialogues")
    add(
        "--out", metavar="TABLE", type=Path,
        help="file for the result, .csv, .jsonl or .parquet (default: CSV on standard output)",
    )  # fmt: skip
    add(
        "--columns", metavar="ROLE=NAME[,...]", type=_columns, default={},
        help=f"names of columns, where they are not those of the run ({', '.join(ROLES)}); ROLE=null: there is no such column",
    )  # fmt: skip
    add("--best", action="store_true", help="of the folder of a sweep, use the completed run with the best dev F1")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)")
    add(
        "--threads", metavar="N", type=_positive, default=1,
        help="CPU threads of the model (default: 1, so that the probabilities do not depend on the cores of the machine)",
    )  # fmt: skip
    return parser


def _value(text: str) -> Any:
    """Return the value of a setting as YAML has it: null, true, numbers and lists; text where it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < (value := int(text)) <= 1024):
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to 1024, got {text}")
    return value


def _columns(text: str) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in text.split(",")]
    for role, sign, name in pairs:
        if not sign or not name:
            raise argparse.ArgumentTypeError(f"expected ROLE=NAME such as text=message, got {role}{sign}")
        if role not in ROLES:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(ROLES)}, got {role}")
    return {role: None if name == "null" else name for role, _, name in pairs}


def _predict(parsed: argparse.Namespace, settings: Mapping[str, str]) -> None:
    """Predict and write the result. What is cheap to check is checked before torch is imported."""
    tables = {name.removeprefix("table."): _value(text) for name, text in settings.items() if name.startswith("table.")}
    if parsed.out is not None:
        outputs.check_output(parsed.out, parsed.file)
    predictor = open_predictor(
        parsed.models, best=parsed.best, device=parsed.device, threads=parsed.threads,
        text_encoder=settings.get("text_encoder"), cache=settings.get("cache"),
    )  # fmt: skip
    predictions = predictor.label(predictor.read(parsed.file, parsed.columns, **tables))
    if parsed.out is None:
        print_utf8(outputs.to_bytes(predictions.frame, ".csv").decode("utf-8"))
    else:
        outputs.write(predictions.frame, parsed.out)
    _tell(predictions, [str(model.folder) for model in predictor.models], parsed.out)


def _tell(predictions: Predictions, models: Sequence[str], out: Path | None) -> None:
    """Print notes, scores and what was done on standard error, since standard output may have the table."""
    for note in predictions.notes:
        print_error(_with_remedies(note))
    n = len(predictions.frame)
    where = "" if out is None else f" in {out}"
    means = models[0] if len(models) == 1 else f"the mean of {len(models)} models"
    print_error(f"{n} utterance{'' if n == 1 else 's'} labelled by {means}{where}")
    if predictions.scores:
        shown = ", ".join(f"{name} {100 * value:.2f} %" for name, value in predictions.scores.items())
        print_error(f"of {predictions.labelled} with a label: {shown}")


def _with_remedies(message: str) -> str:
    """Return a message that asks for what this command takes."""
    for pattern, remedy in _REMEDIES:
        message = pattern.sub(remedy, message)
    return message


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
