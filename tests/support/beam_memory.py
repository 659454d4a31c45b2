"""Beam remembers, within a pytest process, what it works out anew for each pipeline.

A run of three records costs Beam 0.3 s of CPU, and the tests make thousands. A quarter of that goes
into two questions whose answers depend on their arguments alone: which options a class has
(`PipelineOptions.view_as` builds a parser of argparse each time, over a hundred of them for a
pipeline), and what the parameters of a function are. Commands that tests start as processes
ask Beam as it is.
"""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from inspect import Signature
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core  # has imported what is replaced below
from apache_beam.typehints import decorators

_parse: Callable[..., None] = PipelineOptions.__init__
_parsed: dict[tuple[type, tuple[str, ...]], dict[str, Any]] = {}


def _options(self: PipelineOptions, flags: Sequence[str] | None = None, **given: Any) -> None:
    """PipelineOptions.__init__: a copy of what the same flags were for the same class before."""
    if flags is None or isinstance(flags, str):
        _parse(self, flags, **given)
        return
    key = (type(self), tuple(flags))
    if key not in _parsed:
        _parse(self, flags)
        _parsed[key] = copy.deepcopy(vars(self._visible_options))
    found = copy.deepcopy(_parsed[key])
    self._flags = flags
    self._visible_options = Namespace(**found)
    self._all_options = {**found, **given}


_signature_of: Callable[[Any], Signature] = decorators.get_signature
_functions: WeakKeyDictionary[FunctionType, Signature] = WeakKeyDictionary()
_methods: WeakKeyDictionary[FunctionType, Signature] = WeakKeyDictionary()


def _signature(asked: Any) -> Signature:
    """decorators.get_signature. That of a bound method lacks its first parameter."""
    known, function = _functions, asked
    if isinstance(asked, MethodType):
        known, function = _methods, asked.__func__
    if not isinstance(function, FunctionType):
        return _signature_of(asked)
    found = known.get(function)
    if found is None:
        found = known[function] = _signature_of(asked)
    return found


def _remember() -> None:
    assert core.get_signature is _signature_of
    PipelineOptions.__init__ = _options
    for name, module in list(sys.modules.items()):
        if name.startswith("apache_beam.") and vars(module).get("get_signature") is _signature_of:
            vars(module)["get_signature"] = _signature


_remember()
