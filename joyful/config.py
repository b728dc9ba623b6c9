"""Typed schema of all settings with their units and ranges, checked before the first batch.

The YAML groups in conf/ hold the values; the classes here define their types and ranges. `check` converts a plain
mapping (a resolved Hydra configuration) to `Settings`. It raises one InputError that names each invalid setting, its
range and the value given.

The names of losses, optimizers and so on are those of their registries (REGISTRIES), which members from other packages
extend. A member may have own settings (`joyful.registry.Registry.register`); they belong to the section of its name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from joyful.data_settings import DataSettings as DataSettings
from joyful.data_settings import Section, Seed
from joyful.messages import KnownNames
from joyful.records import MODALITIES, NAME_PATTERN, InputError
from joyful.registry import Registry
from joyful.validation import Positive, setting_names, validate

#: Settings that name locations or trackers and do not affect training. They may change when a run or a sweep is resumed.
LOCATION_SETTINGS = ("data.root", "data.cache", "resume", "fork", "sweep_name", "track")

#: Setting that holds a name -> module and variable of the registry of these names.
REGISTRIES = {
    "data.source": ("joyful.data.sources", "SOURCES"),
    "fusion.name": ("joyful.model.joyful", "FUSIONS"),
    "model.context": ("joyful.model.joyful", "CONTEXTS"),
    "loss.name": ("joyful.losses.reconstruction", "RECONSTRUCTION_LOSSES"),
    "classification.name": ("joyful.losses.classification", "CLASSIFICATION_LOSSES"),
    "weighting.name": ("joyful.losses.weighting", "WEIGHTINGS"),
    "optimizer.name": ("joyful.training.optimizers", "OPTIMIZERS"),
}

#: Names that users may expect, from the note's command line and from other trainers -> the setting or group here.
ALIASES = {
    "lr": "optimizer.learning_rate", "learning_rate": "optimizer.learning_rate", "wd": "optimizer.weight_decay",
    "optimizer1": "optimizer", "bs": "training.batch_size", "batch_size": "training.batch_size",
    "epochs": "training.epochs", "num_epochs": "training.epochs", "n_epochs": "training.epochs",
    "encoder_loss_weight": "weights.encoder_loss_weight", "cl_loss_weight": "weights.cl_loss_weight",
    "gate_reg_weight": "weights.gate_reg_weight", "use_smooth_l1": "loss=smoothl1", "dataset": "data",
    "data_dir_path": "data.root", "drop_rate": "model.dropout", "rnn": "model.context",
    "class_weight": "classification.class_weight", "model_ckpt": "fork",
}  # fmt: skip

#: Advice for messages about exhausted memory.
MEMORY_ADVICE = (
    "lower training.batch_size, take model=small or training.precision=bf16, or run fewer workers on this machine "
    "(hydra.sweeper.n_jobs)"
)

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Weight = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=-1, le=100_000)]
LearningRate = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
ModalityLetters = Literal["a", "t", "v", "at", "av", "tv", "atv"]


class FusionSettings(Section):
    """The section `fusion`: the fusion of the modalities."""

    name: str = Field(description="fusion of the modalities")
    intermodal: Literal["auto", "exact", "interpolated"] = Field(description="algorithm of the inter-modal softmax")
    use_ulgm: bool = Field(description="unimodal classification heads (ULGM)")
    unimodal_loss_weight: Weight = Field(description="weight of the unimodal losses after the warm-up")
    ulgm_hidden_size: Positive = Field(description="hidden units of each unimodal head")
    ulgm_delay_epochs: Count = Field(description="epochs before the unimodal losses start")
    ulgm_warmup_epochs: Count = Field(description="epochs of linear increase to the full unimodal weight")


class ContrastiveSettings(Section):
    """The section `model.contrastive`: the contrastive loss and its augmented views."""

    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = Field(description="InfoNCE temperature")
    feature_mask: Fraction = Field(description="fraction of feature columns masked in each view")
    edge_perturbation: Fraction = Field(description="fraction of edges rewired in the first view")
    neighbours: Count = Field(description="nearest-neighbour edges for each utterance in the second view")


class ModelSettings(Section):
    """The section `model`: sizes and options of the network."""

    name: str = Field(description="name of the preset")
    inter_size: Positive = Field(description="units of each modality's projection in the inter-modal branch")
    fusion_hidden_size: Positive = Field(description="hidden units of both fusion autoencoders")
    fusion_latent_size: Positive = Field(description="latent units of each fusion autoencoder")
    context: str = Field(description="type of the sequence context over the dialogue")
    context_layers: Positive = Field(description="layers of the sequence context")
    context_heads: Positive = Field(description="attention heads of the transformer context; must divide its width")
    context_feedforward_size: Positive = Field(description="feed-forward units of the transformer context")
    hidden_size: Positive = Field(description="units of each utterance's node in the graph")
    graph_heads: Positive = Field(description="attention heads of the graph transformer")
    wp: Window = Field(description="past utterances linked to each utterance; -1: all")
    wf: Window = Field(description="future utterances linked to each utterance; -1: all")
    dropout: Fraction = Field(description="fraction of activations dropped in training")
    input_dropout: Fraction = Field(description="fraction of feature values dropped in training, before the fusion")
    modal_dropout: dict[Literal["audio", "text", "visual"], Fraction | None] = Field(
        default={"audio": None, "text": None, "visual": None},
        description="modality -> fraction dropped of its features; null: as input_dropout says",
    )
    node_dropout: Fraction = Field(description="fraction of the graph's input dropped in training")
    learning_rate: LearningRate = Field(description="learning rate for these sizes; adam and adamw use it by default")
    modal_attention: bool = Field(description="keep the reference's unused attention head, to load its checkpoints")
    skip: bool = Field(
        description="also pass the raw features to the context, next to the latent vectors of the fusion"
    )
    skip_projection: bool = Field(
        description="project the features of `skip` to fusion_latent_size units; false: pass them unchanged"
    )
    classifier_skip: bool = Field(
        description="also pass the raw features to the classifier, next to the output of the graph"
    )
    standardise: bool = Field(description="scale features to zero mean and unit variance on the training split")
    speaker_embedding: Count = Field(description="units of a learned vector for each speaker slot; 0: none")
    concat_gin_gout: bool = Field(description="also pass the input of the graph to the classifier, next to its output")
    use_highway: bool = Field(description="add a highway layer before the classifier (Srivastava et al. 2015)")
    contrastive: ContrastiveSettings


class LossSettings(Section):
    """The section `loss`: the reconstruction loss."""

    name: str = Field(description="reconstruction loss")
    beta: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        description="error at which SmoothL1 changes from quadratic to linear"
    )
    modal_weights: dict[Literal["audio", "text", "visual"], Weight] = Field(
        description="weight of each modality in weighted_mse"
    )
    encoder_reduction: Literal["mean", "legacy_sum", "legacy_mean"] = Field(
        description="utterances in the reconstruction loss: all (mean), or the last dialogue of the batch (legacy)"
    )


class ClassificationSettings(Section):
    """The section `classification`: the classification loss."""

    name: str = Field(description="classification loss")
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = Field(description="focusing exponent of the focal loss")
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = Field(description="scale of the focal loss")
    class_weight: Literal["none", "inverse", "sqrt"] = Field(
        description="class weights from the frequencies of the training split"
    )


class WeightSettings(Section):
    """The section `weights`: the weights of the loss components."""

    encoder_loss_weight: Weight
    cl_loss_weight: Weight
    gate_reg_weight: Weight


class WeightingSettings(Section):
    """The section `weighting`: how the loss weights change during training."""

    name: str = Field(description="how the loss weights change during training")
    momentum: Fraction = Field(description="momentum of the moving averages")
    every: Positive = Field(description="optimizer steps between measurements of gradient norms")
    normalisation: Literal["log", "minmax"] = Field(description="log(1 + loss), or min-max over the losses seen")


class OptimizerSettings(Section):
    """The section `optimizer`."""

    name: str = Field(description="optimizer")
    learning_rate: LearningRate = Field(description="learning rate after the warm-up")
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)]
    momentum: Fraction = Field(description="momentum of sgd and rmsprop")
    warmup_steps: Count = Field(description="optimizer steps of linear increase to the learning rate")


class SchedulerSettings(Section):
    """The section `training.scheduler`: the learning rate schedule."""

    name: Literal["reduceLR", "none"]
    watch: Literal["dev_nll", "dev_total"] = Field(description="quantity that is expected to decrease")
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="factor of each reduction of the learning rate")
    patience: Count = Field(description="epochs without a decrease before a reduction")
    minimum: Annotated[float, Field(ge=0.0, le=10.0)] = Field(description="smallest learning rate")


class TrainingSettings(Section):
    """The section `training`."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(description="passes over the training split")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)] = Field(
        description="dialogues in a batch; auto: at most 32, and fewer where an epoch would have under 16 steps"
    )
    evaluations_per_epoch: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="evaluations of dev and test per epoch"
    )
    train_metrics: Literal["full", "running"] = Field(
        description="full: evaluate all losses on all splits; running: the train metrics are averages of the training batches, "
        "contrastive and total loss of dev and test are not evaluated, and the encoder gradient ratio is at whole epochs"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(description="CPU threads of one run")
    precision: Literal["fp32", "bf16"] = Field(description="precision of matrix multiplication")
    max_grad_norm: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        description="largest gradient norm, above which it is clipped; 0: off"
    )
    moving_average: Fraction = Field(
        description="decay per step of the moving average of the parameters, used in evaluation; 0: off"
    )
    early_stopping: Count = Field(description="epochs without a better dev F1 after which training stops; 0: off")
    probe_dialogues: Positive = Field(description="training dialogues used to measure the encoder gradient ratio")
    scheduler: SchedulerSettings


class Settings(Section):
    """The configuration of one run."""

    seed: Seed = Field(description="seed of all random numbers in training")
    device: Literal["auto", "cuda", "cpu"]
    role: Literal["comparison", "calibration", "search"]
    sweep_name: str | None = Field(pattern=NAME_PATTERN)
    resume: str | None = Field(description="folder of a run to resume")
    fork: str | None = Field(
        description="folder of a run whose checkpoint this run starts from, or a file of weights that torch.save wrote"
    )
    objectives: list[Literal["dev_f1", "epochs_to_target"]] | None = Field(
        default=None, min_length=1, max_length=2,
        description="what a search optimizes: dev_f1 (maximized), epochs_to_target (minimized); null: dev_f1",
    )  # fmt: skip
    target: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        default=None, description="dev weighted F1, as a fraction, for the objective epochs_to_target"
    )
    track: dict[str, bool] = Field(
        default={},
        description="trackers that get a copy of the results: name -> true (track=NAME or track=[NAME,NAME])",
    )
    modalities: ModalityLetters
    data: DataSettings
    fusion: FusionSettings
    model: ModelSettings
    loss: LossSettings
    classification: ClassificationSettings
    weights: WeightSettings
    weighting: WeightingSettings
    optimizer: OptimizerSettings
    training: TrainingSettings

    @property
    def modality_names(self) -> tuple[str, ...]:
        """The names of the modalities that `modalities` selects, in the order audio, text, visual."""
        return tuple(name for letter, name in MODALITIES.items() if letter in self.modalities)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers that `track` selects."""
        return tuple(name for name, is_on in self.track.items() if is_on)


def check(config: Mapping[str, Any], names: bool = True) -> Settings:
    """Return the typed settings of a resolved configuration.

    Args:
        config: Resolved configuration, as plain containers.
        names: Whether to look the names up in REGISTRIES, which imports torch. Without it, names and the own settings of
            members are not checked; a process that gets a configuration checked elsewhere starts faster that way.

    Raises:
        InputError: At least one setting is invalid. The message names every invalid setting with its dotted name, the
            expected range and the value given.
    """
    if not names:
        return validate(_settings_class(dict.fromkeys(_SECTIONS, None)), config, known=known_names())
    problems: list[str] = []
    own: dict[str, dict[str, tuple[Any, Any]]] = {}
    for setting, (module, variable) in REGISTRIES.items():
        section, _, key = setting.partition(".")
        values = config.get(section)
        name = values.get(key) if isinstance(values, Mapping) else None
        if not isinstance(name, str):
            continue  # reported below
        registry: Registry[Any] = getattr(importlib.import_module(module), variable)
        try:
            if settings_of := registry.settings_of(name):
                own[section] = settings_of
        except InputError as error:
            problems.append(str(error))
    try:
        settings = validate(_settings_class(own), config, known=known_names())
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
    _check_objectives(settings)
    return settings


@cache
def known_names() -> KnownNames:
    """Return the names of all settings, of the options of the config groups, and the aliases."""
    groups = {item.name: _options(item) for item in files("joyful.conf").iterdir() if item.is_dir()}
    choices = {group: options for group, options in sorted(groups.items()) if options} | {
        "+sweeps": _options(files("joyful.sweeps"))
    }
    return KnownNames(tuple(setting_names(Settings)), choices, ALIASES)


def _options(folder: Traversable) -> list[str]:
    """Return the names of the files of a config group that users choose; those with ``_`` are parts of others."""
    names = (item.name for item in folder.iterdir() if item.name.endswith(".yaml") and not item.name.startswith("_"))
    return sorted(name.removesuffix(".yaml") for name in names)


def _check_objectives(settings: Settings) -> None:
    objectives = settings.objectives or []
    if len(set(objectives)) != len(objectives):
        raise InputError(f"objectives: expected different objectives, got {objectives}; remove the duplicate")
    if "epochs_to_target" in objectives and settings.target is None:
        raise InputError(
            "target: expected a dev weighted F1 for the objective epochs_to_target, got null; set target=0.62"
        )


#: Section -> its class, for the sections whose members may have own settings.
_SECTIONS: dict[str, type[BaseModel]] = {
    name: Settings.model_fields[name].annotation  # type: ignore[misc]
    for name in dict.fromkeys(setting.split(".")[0] for setting in REGISTRIES)
}


def _settings_class(own: Mapping[str, Mapping[str, Any] | None]) -> type[Settings]:
    """Return `Settings` whose sections have further settings: name -> (type, default), or any (None)."""
    if not own:
        return Settings
    sections: dict[str, Any] = {}
    for name, fields in own.items():
        base = _SECTIONS[name]
        if fields is None:
            base = type(base.__name__, (base,), {"model_config": ConfigDict(extra="allow"), "__module__": __name__})
        sections[name] = (create_model(base.__name__, __base__=base, **(fields or {})), ...)
    return create_model("Settings", __base__=Settings, **sections)


def config_hash(settings: Settings) -> str:
    """Return a digest of the settings that determine the results of a run.

    Folders, the name of the sweep, the role, the objectives of a search and the trackers are left out.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of the settings as JSON.
    """
    # A setting with a default here is newer than the others: runs of versions without it did what the default says.
    relevant = settings.model_dump(
        exclude_defaults=True,
        exclude={
            **dict.fromkeys(("resume", "fork", "sweep_name", "role", "objectives", "target", "track"), True),
            "data": {"cache", "root"},
        },
    )
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]
