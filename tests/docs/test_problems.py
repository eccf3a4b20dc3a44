"""The page of problems is what its script makes of the broken workflows and the source."""

from __future__ import annotations

from docs.problems_page import MEANINGS, PAGE, page


def test_the_page_of_problems_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m docs.problems_page"


def test_meanings_are_sentences() -> None:
    assert [code for code, meaning in MEANINGS.items() if not meaning.endswith(".") or "\n" in meaning] == []
