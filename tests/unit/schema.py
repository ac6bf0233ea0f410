"""As much of JSON Schema (draft 2020-12) as our schema uses, read from the specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_KNOWN = {
    "$schema", "$ref", "$defs", "title", "description", "oneOf", "type", "properties", "required",
    "additionalProperties", "items", "enum", "const", "minimum",
}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problems(value: Any, schema: Any, root: Any, at: str = "$") -> Iterator[str]:
    """What `value` does against `schema`; nothing where it is valid."""
    unknown = set(schema) - _KNOWN
    assert not unknown, f"this validator does not know {unknown}"
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from problems(value, target, root, at)
    if "oneOf" in schema:
        fits = sum(not any(problems(value, s, root, at)) for s in schema["oneOf"])
        if fits != 1:
            yield f"{at}: fits {fits} of the alternatives"
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not one of {schema['enum']}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{at}: {value!r} is no {kinds}"
        return
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at}: {value} is too small"
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from problems(item, schema["items"], root, f"{at}[{number}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                yield f"{at}: no {name}"
        for name, item in value.items():
            if name in known:
                yield from problems(item, known[name], root, f"{at}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{at}: {name} is not known"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
