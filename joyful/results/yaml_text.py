"""Hydra's YAML files as plain data: nothing is constructed, no interpolation is resolved.

The values are built here from the parser's events, so that tags construct nothing, an alias (and with it a document
that unfolds to gigabytes) is refused, and nesting cannot exhaust the stack.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from joyful.records import InputError, one_line

if TYPE_CHECKING:
    import yaml

MAXIMUM_DEPTH = 100

# YAML 1.1 as PyYAML reads it takes 1e-4 for text, and a number needs a dot and a signed exponent; OmegaConf takes these for numbers
_FLOAT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+\Z")


def parse_yaml(data: bytes) -> Any:
    """The mappings (text keys), lists, text, numbers, booleans and nulls of one YAML document; empty: None.

    `${...}` stays text, a tag is passed over. Raises InputError for anything that is not one such document.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(yaml.parse(data.decode("utf-8"), Loader=loader))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"it is not YAML that can be read ({one_line(error)})") from None


def _build(events: Any) -> Any:
    import yaml

    root: list[Any] = []
    # open containers, innermost last: the container, and for a mapping the key that waits for its value
    stack: list[tuple[Any, list[str]]] = [(root, [])]

    def place(value: Any) -> None:
        container, key = stack[-1]
        if isinstance(container, list):
            container.append(value)
        elif key:
            container[key.pop()] = value
        else:
            key.append(_key(value))

    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*), which Hydra never writes")
        if isinstance(event, yaml.ScalarEvent):
            place(_scalar(event))
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(stack) > MAXIMUM_DEPTH:
                raise ValueError(f"it is nested deeper than {MAXIMUM_DEPTH}")
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            place(value)
            stack.append((value, []))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
    if len(root) > 1:
        raise ValueError("it has more than one document")
    return root[0] if root else None


def _key(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("a key is not text")
    return value if isinstance(value, str) else "null" if value is None else str(value)


def _scalar(event: yaml.ScalarEvent) -> Any:
    import yaml

    text = event.value
    if event.style or event.tag:  # quoted text; and what a tag means is not looked at
        return text
    patterns = yaml.resolver.Resolver.yaml_implicit_resolvers.get(text[:1], ())
    tag = next((tag for tag, pattern in patterns if pattern.match(text)), "float" if _FLOAT.match(text) else "text")
    kind = tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind in ("bool", "int", "float"):
        build = getattr(yaml.constructor.SafeConstructor(), f"construct_yaml_{kind}")
        return build(yaml.ScalarNode(tag, text))
    return text  # (times too, as for OmegaConf)
