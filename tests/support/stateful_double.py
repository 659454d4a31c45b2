"""Drives a stateful DoFn without a runner: state and event-time timers per key, bundles that fail,
watermarks that are a parameter.

A failed bundle rolls state and timers back, as a runner's restart does, but leaves the DoFn
instance and its process as they are.
"""

from __future__ import annotations

import copy
import inspect

from apache_beam.transforms.core import _DoFnParam
from apache_beam.transforms.userstate import BagStateSpec, get_dofn_specs
from apache_beam.utils.timestamp import Timestamp


class BundleFailed(Exception):
    """The fault that these tests inject."""


class _Cell:
    def __init__(self, store, name, is_bag):
        self._store, self._name, self._is_bag = store, name, is_bag

    def read(self):
        return (
            list(self._store.get(self._name, [])) if self._is_bag else self._store.get(self._name)
        )

    def add(self, value):
        assert isinstance(value, bytes)
        self._store.setdefault(self._name, []).append(value)

    def write(self, value):
        self._store[self._name] = value

    def clear(self):
        self._store.pop(self._name, None)


class _Timer:
    def __init__(self, timers, name):
        self._timers, self._name = timers, name

    def set(self, timestamp, dynamic_timer_tag=""):
        assert timestamp.micros % 1000 == 0, "timers travel in milliseconds"
        self._timers[self._name, dynamic_timer_tag] = timestamp.micros

    def clear(self, dynamic_timer_tag=""):
        self._timers.pop((self._name, dynamic_timer_tag), None)


class StatefulDouble:
    def __init__(self, dofn):
        self.state, self.timers = {}, {}
        self.watermark_us = None
        self.replace_instance(dofn)

    def replace_instance(self, dofn):
        """Another DoFn instance goes on with the same state: the runner may do so between any two
        bundles.
        """
        self._dofn = dofn
        _, timer_specs = get_dofn_specs(dofn)
        self._callbacks = {spec.name: spec._attached_callback for spec in timer_specs}

    def bundle(self, elements, fail_after=None):
        """Outputs of one bundle. fail_after=n: raises BundleFailed after the n-th element."""
        saved = copy.deepcopy((self.state, self.timers))
        outputs = []
        try:
            self._start()
            for number, element in enumerate(elements):
                if fail_after == number:
                    raise BundleFailed
                outputs += self._call(self._dofn.process, element[0], element)
            if fail_after is not None:
                raise BundleFailed
            if hasattr(self._dofn, "finish_bundle"):
                outputs += list(self._dofn.finish_bundle() or [])
        except BundleFailed:
            self.state, self.timers = saved
            raise
        return outputs

    def advance_watermark(self, watermark_us):
        """Fires all timers that the watermark has reached, those set meanwhile too."""
        self.watermark_us = watermark_us
        reached = watermark_us // 1000 * 1000
        for _ in range(10_000):
            due = [
                (at, key, name)
                for key, named in self.timers.items()
                for name, at in named.items()
                if at <= reached
            ]
            if not due:
                return
            self._fire([min(due, key=lambda timer: timer[0])])
        raise AssertionError("timers never come to an end")

    def advance_once(self, watermark_us):
        """Fires all timers that the watermark has reached in one bundle, and none of those that it
        sets, as Flink does: those wait for the next advance. Returns how many have fired.
        """
        self.watermark_us = watermark_us
        due = [
            (at, key, name)
            for key, named in self.timers.items()
            for name, at in named.items()
            if at <= watermark_us // 1000 * 1000
        ]
        if due:
            self._fire(sorted(due, key=lambda timer: timer[0]))
        return len(due)

    def _fire(self, due):
        self._start()
        for at, key, name in due:
            del self.timers[key][name]
            method = getattr(self._dofn, self._callbacks[name[0]].__name__)
            self._call(method, key, None, at)
        if hasattr(self._dofn, "finish_bundle"):
            list(self._dofn.finish_bundle() or [])

    def _start(self):
        if hasattr(self._dofn, "start_bundle"):
            self._dofn.start_bundle()

    def _call(self, method, key, element, fired_at_us=None):
        store = self.state.setdefault(key, {})
        timers = self.timers.setdefault(key, {})
        arguments = {}
        for name, parameter in inspect.signature(method).parameters.items():
            default = parameter.default
            if default is inspect.Parameter.empty:
                arguments[name] = element
            elif hasattr(default, "state_spec"):
                arguments[name] = _Cell(
                    store, default.state_spec.name, isinstance(default.state_spec, BagStateSpec)
                )
            elif hasattr(default, "timer_spec"):
                arguments[name] = _Timer(timers, default.timer_spec.name)
            elif isinstance(default, _DoFnParam) and str(default.param_id) == "KeyParam":
                arguments[name] = key
            elif isinstance(default, _DoFnParam) and str(default.param_id) == "TimestampParam":
                arguments[name] = Timestamp(micros=fired_at_us)
            else:
                raise AssertionError(f"unknown parameter {name}={default}")
        return list(method(**arguments) or [])
