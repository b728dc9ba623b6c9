"""Small valid files of each format, from which hostile and mutated files are derived."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from joyful.data import emorynlp, meld, mosi, prepared
from joyful.data.sources import SOURCES
from tests.support.cogmen_pickles import dump
from tests.support.datasets import data_settings, fake_encode

MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
EMORYNLP_HEADER = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Sr No."


def meld_row(text: str = "Well.", speaker: str = "Ann", emotion: str = "joy", dialogue: int = 0, place: int = 0) -> str:
    """Return a row of MELD's CSV file."""
    return f'1,"{text}",{speaker},{emotion},positive,{dialogue},{place},1,1,"00:00:01,250","00:00:02,500"'


def emorynlp_row(
    text: str = "Hm?", speaker: str = "['Joey']", emotion: str = "Sad", scene: int = 1, place: int = 1
) -> str:
    """Return a row of EmoryNLP's CSV file."""
    return f'"{text}","{speaker}",{emotion},{scene},{place},4,11,1'


def meld_table(*rows: str) -> bytes:
    """Return a CSV file of MELD with two dialogues and these additional rows."""
    honest = (meld_row(), meld_row("No!", "Bob", "anger", 0, 1), meld_row("Why?", "Ann", "surprise", 4, 2))
    return "\r\n".join((MELD_HEADER, *honest, *rows, "")).encode()


def emorynlp_table(*rows: str) -> bytes:
    """Return a CSV file of EmoryNLP with one scene and these additional rows."""
    honest = (emorynlp_row(), emorynlp_row("Oh.", "['Ross', 'Joey']", "Joyful", place=3))
    return "\r\n".join((EMORYNLP_HEADER, *honest, *rows, "")).encode()


def curves_table(*rows: str) -> bytes:
    """Return a table of curves for `joyful import csv` with these additional rows."""
    honest = ("old,1,5,1,dev,0.4,1.6", "old,1,5,1,train,0.5,1.5", "new,1,5,1,dev,0.45,1.5")
    return "\n".join(("arm,seed,step,epoch,split,f1_weighted,nll", *honest, *rows, "")).encode()


def write_meld(folder: Path) -> None:
    """Write the three files of MELD."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in meld.FILES:
        (folder / name).write_bytes(meld_table())


def write_emorynlp(folder: Path) -> None:
    """Write the three files of EmoryNLP."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in emorynlp.FILES:
        (folder / name).write_bytes(emorynlp_table())


def write_mosi(folder: Path) -> None:
    """Write the four files of MOSI, with five videos of one utterance each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transcripts.csv").write_text("".join(f"v{i}_1,well {i},2,{i % 2}\n" for i in range(5)))
    (folder / "rows_test.csv").write_text("".join(f"{i}\n" for i in range(5)))
    for name, width in (("audio_test.csv", mosi.AUDIO), ("video_test.csv", mosi.VISUAL)):
        rows = (",".join([*(f"{(i + c) % 7}.5" for c in range(width)), str(i % 2)]) for i in range(5))
        (folder / name).write_text("".join(f"{row}\n" for row in rows))


def iemocap_pickle() -> bytes:
    """Return COGMEN's pickle of IEMOCAP with a dialogue of two utterances in each split."""
    sample = {
        "vid": "Ses01", "label": [1, 2], "speaker": ["M", "F"], "sentence": ["a", "b"],
        "audio": [np.zeros(100, np.float32)] * 2, "visual": [np.zeros(512, np.float32)] * 2, "text": None,
        "sbert_sentence_embeddings": [np.zeros(768, np.float32)] * 2,
    }  # fmt: skip
    return dump({split: [sample] for split in ("train", "dev", "test")})


def write_prepared(folder: Path) -> None:
    """Write a prepared dataset from files of MELD, which stay in the folder NAME-meld next to it."""
    write_meld(folder.with_name(f"{folder.name}-meld"))
    settings = data_settings("meld", root=str(folder.with_name(f"{folder.name}-meld")))
    prepared.write_folder(SOURCES["meld"].read(settings, fake_encode), folder, settings.model_dump(mode="json"))


def rewrite_prepared(folder: Path, name: str, data: bytes) -> None:
    """Replace a file of a prepared dataset by `data`, and update its size in meta.json."""
    (folder / name).write_bytes(data)
    meta = json.loads((folder / prepared.META).read_text())
    meta["files"][name]["bytes"] = len(data)
    (folder / prepared.META).write_text(json.dumps(meta))
