"""The ring of state cells `ids_00` to `ids_15`, declared once for every DoFn that has one.

Beam reads the state cells of a DoFn off the default values of its methods' parameters, one
parameter for each cell:
https://beam.apache.org/documentation/programming-guide/#types-of-state. `with_ring` declares the
sixteen parameters and hands the cells to the method as one tuple.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from typing import Final, TypeVar

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import BagStateSpec

from transforms.deduplicate.shard_state import SLOTS

Result = TypeVar("Result")

_BAGS: Final = [BagStateSpec(f"ids_{slot:02}", BytesCoder()) for slot in range(SLOTS)]
_CELLS: Final = [
    Parameter(bag.name, Parameter.POSITIONAL_OR_KEYWORD, default=beam.DoFn.StateParam(bag))
    for bag in _BAGS
]


def with_ring(method: Callable[..., Result]) -> Callable[..., Result]:
    """Fills the last parameter of a `process` or timer method with the tuple of SLOTS bag cells.

    The method keeps its other parameters, with Beam's marks as their defaults. Beam passes the
    arguments of `process` by position and those of a timer method by name, in an order of its own,
    so they are bound by name here: once per call.
    """
    signature = inspect.signature(method)
    *others, ring = signature.parameters.values()
    declared = signature.replace(parameters=[*others, *_CELLS])

    @wraps(method)
    def call(*positional: object, **named: object) -> Result:
        given = declared.bind(*positional, **named).arguments
        given[ring.name] = tuple(given.pop(cell.name) for cell in _CELLS)
        return method(**given)

    # Beam calls inspect.signature, which returns this attribute where there is one.
    call.__signature__ = declared  # type: ignore[attr-defined]
    return call
