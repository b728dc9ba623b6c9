"""The command `joyful prepare`: convert a dataset to the prepared format (see joyful.data.prepared).

joyful prepare data=NAME data.root=FOLDER out=FOLDER
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joyful.config import DataSettings
from joyful.data import prepared
from joyful.data.cache import cache_folder
from joyful.data.description import FROM_FILE, text_encoder_digest
from joyful.data.loading import make_encoder
from joyful.data.sources import SOURCES
from joyful.data.validation import validate
from joyful.messages import did_you_mean, nearest
from joyful.records import SPLITS, DialogueDataset, InputError, print_error
from joyful.runtime.config_errors import config_error_message
from joyful.validation import validate as validate_settings

HELP = """\
joyful prepare data=NAME [data.SETTING=VALUE ...] out=FOLDER

Read a dataset and write it to a new folder as safetensors (features, labels, speakers, lengths) and Parquet
(one row per utterance). All modalities are kept. Text is encoded with data.text_encoder.

  joyful prepare data=meld data.root=$JOYFUL_DATA/meld out=prepared/meld
  joyful prepare data=mosi data.root=$JOYFUL_DATA/mosi data.fold=2 out=prepared/mosi-2
  joyful prepare data=mosei data.root=pickles data.emotion=7class out=prepared/mosei-7

Then train on it:

  python run.py data=prepared data.root=prepared/meld modalities=t

The settings are those of conf/data/NAME.yaml, written as Hydra overrides. Exit codes: 0 success, 2 invalid input.
"""


def prepare(settings: DataSettings, out: Path) -> DialogueDataset:
    """Read a dataset with all its modalities and write it to a new folder.

    Args:
        settings: The data settings.
        out: The new folder.

    Returns:
        The dataset as read from `out`, with verified digests.

    Raises:
        InputError: If the dataset is missing or invalid, or `out` exists or cannot be written.
    """
    if out.exists():
        raise InputError(f"out={out} exists; remove it or choose another folder")
    source = SOURCES[settings.source]
    if not source.cached:
        raise InputError(f"data={settings.name} is in the prepared format already; copy its folder")
    dataset = source.read(settings, make_encoder(settings))
    validate(dataset)
    try:
        written = prepared.write_folder(dataset, out, _origin(settings, dataset))
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error}); choose another folder") from None
    if not written:
        raise InputError(f"out={out} was created by another process in the meantime; choose another folder")
    return prepared.open_folder(out, verify=True)[0]


def _origin(settings: DataSettings, dataset: DialogueDataset) -> dict[str, Any]:
    """Return what meta.json records of the source: the settings, and the digest of the text encoder."""
    digest = (
        None if dataset.text_encoder == FROM_FILE else text_encoder_digest(dataset.text_encoder, cache_folder(settings))
    )
    return settings.model_dump(mode="json", exclude={"cache"}) | {"text_encoder_digest": digest}


def read_overrides(overrides: Sequence[str]) -> tuple[DataSettings, Path]:
    """Parse the overrides of the command line.

    Args:
        overrides: Texts NAME=VALUE: data, data.SETTING and out.

    Returns:
        The data settings and the output folder.

    Raises:
        InputError: If an override is invalid, or data or out is missing.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values = dict(_split(override) for override in overrides)
    for name in values:
        if name not in ("data", "out") and not name.startswith("data."):
            near = did_you_mean(nearest(name, ("data", "data.root", "out")))
            raise InputError(f"{name}: not a setting of this command; set data=, data.SETTING= and out= only{near}")
    out = values.pop("out", "")
    if not out or "data" not in values:
        raise InputError("expected data=NAME and out=FOLDER; `joyful prepare --help` shows examples")
    # "+data" adds the group, because there is no defaults list. No other group is needed.
    composed = [f"+data={values.pop('data')}", *(f"{name}={value}" for name, value in values.items())]
    try:
        with initialize_config_module("joyful.conf"):
            config = compose(config_name=None, overrides=composed)
        settings: Any = OmegaConf.to_container(config.data, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(config_error_message(error)) from None
    return validate_settings(DataSettings, settings, "data."), Path(out).expanduser()


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 success, 2 invalid input."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        settings, out = read_overrides(arguments)
        dataset = prepare(settings, out)
    except InputError as error:
        print_error(f"prepare: {error}")
        return 2
    counts = ", ".join(
        f"{split} {len(dataset.splits[split].speakers)} utterances in {len(dataset.splits[split].lengths)} dialogues"
        for split in SPLITS
    )
    widths = ", ".join(f"{name} {d}" for name, d in dataset.dimensions.items())
    print(f"{out}: {dataset.name}; {counts}; {widths}\ntrain on it: python run.py data=prepared data.root={out}")
    return 0


def _split(override: str) -> tuple[str, str]:
    name, sign, value = override.partition("=")
    if not sign:
        raise InputError(f"expected NAME=VALUE, got {override!r}; `joyful prepare --help` shows examples")
    return name.lstrip("+"), value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
