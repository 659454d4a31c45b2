"""`pipeline.loading`: what is imported is exempt from Python's cycle collector."""

import gc
import sys
from collections.abc import Iterator

import pytest

from pipeline.loading import modules_load


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    frozen = gc.get_freeze_count()
    yield
    if gc.get_freeze_count() > frozen:
        gc.unfreeze()


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delitem(sys.modules, "tabnanny", raising=False)
    return "tabnanny"


def test_the_collector_is_off_while_modules_load_and_on_afterwards() -> None:
    with modules_load():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_on_again_where_an_import_fails() -> None:
    with pytest.raises(ModuleNotFoundError), modules_load():
        __import__("there_is_no_such_module")
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with modules_load():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_loaded_is_exempt(not_loaded: str) -> None:
    frozen = gc.get_freeze_count()
    with modules_load():
        __import__(not_loaded)
    assert gc.get_freeze_count() > frozen


def test_nothing_is_exempt_where_all_was_loaded_before() -> None:
    frozen = gc.get_freeze_count()
    with modules_load():
        __import__("gc")
    assert gc.get_freeze_count() == frozen
