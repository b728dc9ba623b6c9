"""Validation of settings with pydantic, with error messages that say what was expected, what was given and what to set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from joyful.messages import KnownNames
from joyful.records import InputError

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Mapping[str, Any], prefix: str = "", known: KnownNames | None = None) -> Model:
    """Return the values as an instance of a pydantic model.

    Args:
        model: Class of the result.
        values: Values of its fields.
        prefix: Text before each setting's dotted name in messages, such as "hydra.sweeper.".
        known: Further names that a message about an unknown setting may offer, besides the settings of the model.

    Raises:
        InputError: At least one value is invalid. The message names every invalid setting with its dotted name, the
            expected range and the value given.

    Example:
        >>> class Search(BaseModel):
        ...     n_trials: Positive
        >>> validate(Search, {"n_trials": 0}, "search.")
        Traceback (most recent call last):
        joyful.records.InputError: search.n_trials: expected >= 1 and <= 1000000, got 0; set search.n_trials=VALUE
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        names = (known or KnownNames()).with_settings(setting_names(model, prefix))
        lines = dict.fromkeys(_explain(detail, model, prefix, names) for detail in error.errors())
        raise InputError("; ".join(lines)) from None


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings and sections of a model, also of mappings with fixed keys.

    Args:
        model: The class.
        prefix: Text before each name.

    Example:
        >>> class Search(BaseModel):
        ...     shares: dict[Literal["train", "dev"], float]
        >>> list(setting_names(Search, "search."))
        ['search.shares', 'search.shares.train', 'search.shares.dev']
    """
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from setting_names(part, f"{prefix}{name}.")
            elif get_origin(part) is dict and get_origin(get_args(part)[0]) is Literal:
                yield from (f"{prefix}{name}.{key}" for key in get_args(get_args(part)[0]))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line "dotted.name: OLD -> NEW" for every leaf that differs between two nested mappings.

    Args:
        old: First mapping. A missing key counts as None.
        new: Second mapping.
        prefix: Text before each dotted name.

    Example:
        >>> differences({"loss": {"name": "mse"}}, {"loss": {"name": "smoothl1"}})
        ["loss.name: 'mse' -> 'smoothl1'"]
    """
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


# Expected value for each of pydantic's error types; any other type keeps pydantic's message.
_EXPECTED = {
    "int_type": "an integer", "int_parsing": "an integer", "int_from_float": "an integer", "float_type": "a number",
    "bool_type": "true or false", "string_type": "text", "finite_number": "a finite number",
    "dict_type": "a mapping of names to values", "model_type": "a section of settings", "missing": "a value",
}  # fmt: skip


def _explain(detail: ErrorDetails, model: type[BaseModel], prefix: str, names: KnownNames) -> str:
    location = [str(part) for part in detail["loc"] if not _is_union_branch(part)]
    name, kind, context = f"{prefix}{'.'.join(location)}", detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden" or location[-1] == "[key]":  # a key of a mapping
        return names.unknown(name.removesuffix(".[key]"))
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        expected = _range_of(model, location) or detail["msg"]
    elif kind == "literal_error":
        expected = f"one of {context['expected']}"
    elif kind == "string_pattern_mismatch":
        expected = f"a name of letters, digits and _ . - only (pattern {context['pattern']})"
    else:
        expected = _EXPECTED.get(kind, detail["msg"]) + _range_of(model, location, prefix=" ")
    given = "nothing" if kind == "missing" else repr(detail["input"])
    description = _description_of(model, location)
    about = f" ({description})" if description else ""
    name = re.sub(r"\.\d+$", "", name)  # an item of a list cannot be set alone
    return f"{name}: expected {expected}, got {given}{about}; set {name}=VALUE"


def _is_union_branch(part: str | int) -> bool:
    # pydantic appends the branch of a union ("constrained-int", "literal['auto']") to the location of an error.
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
