"""A number with its noun."""

from pipeline.counted import counted


def test_one_is_no_plural() -> None:
    assert [counted(number, "window") for number in (0, 1, 2, 1_200)] == [
        "0 windows", "1 window", "2 windows", "1,200 windows",
    ]  # fmt: skip
    assert counted(1, "row was", "rows were") == "1 row was"
    assert counted(2, "row was", "rows were") == "2 rows were"
