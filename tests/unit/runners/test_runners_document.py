"""docs/runners.md says of the runners what the code does."""

from __future__ import annotations

from tests.support.runners_document import DOCUMENT, with_tables


def test_the_document_is_what_the_profiles_say() -> None:
    text = DOCUMENT.read_text()
    assert text == with_tables(text), "python -m tests.support.runners_document writes it anew"
