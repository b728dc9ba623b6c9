"""Read Hydra's YAML files as plain data, without constructing objects or resolving interpolations.

This module builds the values from the parser's events. Tags therefore construct nothing, aliases are refused (they
could expand to gigabytes), and deep nesting cannot exhaust the stack.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from joyful.records import InputError, one_line

if TYPE_CHECKING:
    import yaml

MAXIMUM_DEPTH = 100

#: Keys and indices that lead to a value.
Place = tuple[str | int, ...]

# In PyYAML (YAML 1.1) a number with an exponent needs a dot and a signed exponent, so 1e-4 is text. OmegaConf reads it
# as a number, and so does this module.
_FLOAT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+\Z")


def parse_yaml(data: bytes, lines: dict[Place, int] | None = None) -> Any:
    """Parse one YAML document, reading scalars as OmegaConf does.

    Args:
        data: The document in UTF-8.
        lines: Filled with the line of each value, counted from 1, by its place: the keys and indices that lead to it.

    Returns:
        Dictionaries with text keys, lists, text, numbers, booleans and None; None for an empty document. `${...}` stays
        text and tags are ignored.

    Raises:
        InputError: If this is not valid YAML, has aliases or several documents, or is nested deeper than 100 levels.

    Example:
        >>> parse_yaml(b"loss: {name: mse, beta: 1e-2}")
        {'loss': {'name': 'mse', 'beta': 0.01}}
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(yaml.parse(data.decode("utf-8"), Loader=loader), {} if lines is None else lines)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"it is not valid YAML ({one_line(error)})") from None


def _build(events: Any, lines: dict[Place, int]) -> Any:
    import yaml

    root: list[Any] = []
    # open containers, innermost last, with their places; for a mapping with the key whose value comes next
    stack: list[tuple[Any, list[str], Place]] = [(root, [], ())]

    def place(value: Any, line: int) -> Place:
        container, key, at = stack[-1]
        if container is root:
            root.append(value)
        elif isinstance(container, list):
            at = (*at, len(container))
            container.append(value)
        elif key:
            at = (*at, key[-1])
            container[key.pop()] = value
        else:
            key.append(_key(value))
            at = (*at, key[-1])
        lines[at] = line
        return at

    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*), which is not supported")
        if isinstance(event, yaml.ScalarEvent):
            place(_scalar(event), _line(event))
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(stack) > MAXIMUM_DEPTH:
                raise ValueError(f"it is nested deeper than {MAXIMUM_DEPTH}")
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            stack.append((value, [], place(value, _line(event))))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
    if len(root) > 1:
        raise ValueError("it has more than one document")
    return root[0] if root else None


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _key(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("a key is not text")
    return value if isinstance(value, str) else "null" if value is None else str(value)


def _scalar(event: yaml.ScalarEvent) -> Any:
    import yaml

    text = event.value
    if event.style or event.tag:  # quoted text; tags are ignored
        return text
    patterns = yaml.resolver.Resolver.yaml_implicit_resolvers.get(text[:1], ())
    tag = next((tag for tag, pattern in patterns if pattern.match(text)), "float" if _FLOAT.match(text) else "text")
    kind = tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind in ("bool", "int", "float"):
        build = getattr(yaml.constructor.SafeConstructor(), f"construct_yaml_{kind}")
        return build(yaml.ScalarNode(tag, text))
    return text  # dates too, as in OmegaConf
