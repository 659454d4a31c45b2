"""Checks a Kubernetes manifest against a schema: no field that is not in it, none that is missing.

A schema is a type; a Pattern; [schema] for a list; Each(schema) for a map with any keys; or a dict
of field -> schema, where Needed(schema) marks the fields that must be there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Needed:
    schema: Any


@dataclass(frozen=True)
class Each:
    schema: Any


@dataclass(frozen=True)
class Pattern:
    """Text that matches as a whole, which is never read as a number or a truth value."""

    regex: str


def problems(value: Any, schema: Any, where: str = "") -> list[str]:
    """What does not fit, each with its place such as spec.replicas."""
    match schema:
        case Needed(inner):
            return problems(value, inner, where)
        case Pattern(regex):
            fits = isinstance(value, str) and re.fullmatch(regex, value)
            return [] if fits else [f"{where}: {value!r} does not match {regex}"]
        case Each(inner):
            if not isinstance(value, dict):
                return [f"{where}: {value!r} is no map"]
            return [
                found
                for key, each in value.items()
                for found in problems(each, inner, f"{where}.{key}")
            ]
        case [inner]:
            if not isinstance(value, list) or not value:
                return [f"{where}: {value!r} is no list with entries"]
            return [
                found
                for index, each in enumerate(value)
                for found in problems(each, inner, f"{where}[{index}]")
            ]
        case dict():
            return _fields(value, schema, where)
        case _:
            # In Python a truth value is a number as well.
            fits = isinstance(value, schema) and not (
                isinstance(value, bool) and schema is not bool
            )
            return [] if fits else [f"{where}: {value!r} is of another type than {schema}"]


def _fields(value: Any, schema: dict[str, Any], where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {value!r} has no fields"]
    place = f"{where}." if where else ""
    missing = [
        f"{place}{name}: missing"
        for name, inner in schema.items()
        if isinstance(inner, Needed) and name not in value
    ]
    unknown = [f"{place}{name}: there is no such field" for name in value if name not in schema]
    return (
        missing
        + unknown
        + [
            found
            for name, each in value.items()
            if name in schema
            for found in problems(each, schema[name], f"{place}{name}")
        ]
    )
