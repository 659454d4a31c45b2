"""Beam remembers, within a process, what it works out anew for each pipeline.

A run of a thousand records costs Beam more CPU than the pipeline. A third of that goes into four
questions whose answers depend on their arguments alone: which options a class has
(`PipelineOptions.view_as` builds a parser of argparse each time, over a hundred of them for a
pipeline), which all of them are, what the parameters of a function are, and which cells and timers
a DoFn has. `--every` asks them each second.
"""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from inspect import Signature
from types import FunctionType, MethodType
from typing import Any, Final
from weakref import WeakKeyDictionary

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate  # has imported what is replaced below
from apache_beam.typehints import decorators

_FOR_WARNINGS: Final = {"retain_unknown_options": True, "display_warnings": True}

_parse: Callable[..., None] = PipelineOptions.__init__
_parsed: dict[tuple[type, tuple[str, ...]], dict[str, Any]] = {}


def _options(self: PipelineOptions, flags: Sequence[str] | None = None, **given: Any) -> None:
    """PipelineOptions.__init__: a copy of what the same flags were for the same class before."""
    if flags is None or isinstance(flags, str):
        _parse(self, flags, **given)
        return
    flags = list(flags)
    key = (type(self), tuple(flags))
    if key not in _parsed:
        _parse(self, flags)
        _parsed[key] = copy.deepcopy(vars(self._visible_options))
    found = copy.deepcopy(_parsed[key])
    self._flags = flags
    self._visible_options = Namespace(**found)
    self._all_options = {**found, **given}


_ask_all: Callable[..., dict[str, Any]] = PipelineOptions.get_all_options
_all: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = {}


def _all_options(self: PipelineOptions, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """PipelineOptions.get_all_options: asked once for the same flags, and what was set since.

    Pipeline.run asks, for the sake of warnings about unknown flags.
    """
    # Without flags they are those of the command line; a string has been refused by argparse.
    if args or kwargs != _FOR_WARNINGS or not isinstance(self._flags, list):
        return _ask_all(self, *args, **kwargs)
    # A class that is defined meanwhile may know a flag.
    key = tuple(self._flags), tuple(PipelineOptions.__subclasses__())
    given, found = _all.get(key, (None, {}))
    if given != self._all_options:
        found = _ask_all(self, **_FOR_WARNINGS)
        _all[key] = copy.deepcopy(self._all_options), found
    return copy.deepcopy(found)


def _of_function(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, but a Python function is asked about once, and once as a bound method, which lacks
    the first parameter.
    """
    functions: WeakKeyDictionary[FunctionType, Any] = WeakKeyDictionary()
    methods: WeakKeyDictionary[FunctionType, Any] = WeakKeyDictionary()

    def answer(asked: Any) -> Any:
        known, function = functions, asked
        if isinstance(asked, MethodType):
            known, function = methods, asked.__func__
        if not isinstance(function, FunctionType):
            return ask(asked)
        found = known.get(function)
        if found is None:
            found = known[function] = ask(asked)
        return found

    return answer


_ask_signature: Callable[[Any], Signature] = decorators.get_signature
_signature = _of_function(_ask_signature)
_ask: Callable[[Any], Any] = core.get_function_args_defaults
_arguments = _of_function(_ask)


def _arguments_and_defaults(asked: Any) -> tuple[list[str], list[Any]]:
    """core.get_function_args_defaults, whose lists belong to who asks."""
    names, defaults = _arguments(asked)
    return list(names), list(defaults)


_ask_specs: Callable[[Any], tuple[set[Any], set[Any]]] = userstate.get_dofn_specs
_specs: WeakKeyDictionary[type, tuple[set[Any], set[Any]]] = WeakKeyDictionary()


def _state_and_timers(dofn: Any) -> tuple[set[Any], set[Any]]:
    """userstate.get_dofn_specs, asked once for each class where the class alone decides."""
    kind = type(dofn)
    if not _class_decides(kind, vars(dofn)):
        return _ask_specs(dofn)
    if kind not in _specs:
        _specs[kind] = _ask_specs(dofn)
    cells, timers = _specs[kind]
    return set(cells), set(timers)


def _class_decides(kind: type, own: Mapping[str, Any]) -> bool:
    """Not for an object with methods of its own, or with something else in the place of one."""
    if kind is core.CallableWrapperDoFn:
        # Beam asks methods alone, and a function is none: of these objects, those of their class.
        return isinstance(own["process"], FunctionType)
    return kind._process_argspec_fn is core.DoFn._process_argspec_fn and not any(  # type: ignore[attr-defined]
        isinstance(value, MethodType) or callable(getattr(kind, name, None))
        for name, value in own.items()
    )


def remember() -> None:
    """From now on; calling it again changes nothing.

    Raises RuntimeError where Beam has other functions than those of the version that is pinned in
    setup.py.
    """
    if PipelineOptions.__init__ is _options:
        return
    found = core.get_signature, core.get_function_args_defaults, userstate.get_dofn_specs
    if found != (_ask_signature, _ask, _ask_specs):
        raise RuntimeError("runners/beam_answers.py does not fit this version of apache-beam")
    PipelineOptions.__init__ = _options
    PipelineOptions.get_all_options = _all_options
    for name, module in list(sys.modules.items()):
        if name.startswith("apache_beam.") and vars(module).get("get_signature") is _ask_signature:
            vars(module)["get_signature"] = _signature
    core.get_function_args_defaults = _arguments_and_defaults
    userstate.get_dofn_specs = _state_and_timers
