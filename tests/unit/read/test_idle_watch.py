"""A quiet partition follows the clock by answers of the broker, and by nothing else."""

from transforms.read.idle_watch import IdleWatch

SECOND = 1_000_000
TIMEOUT = 60 * SECOND


def quiet(watch: IdleWatch, offset: int, since: int, until: int) -> int | None:
    """Asks whenever the watch wants it, with the end always at `offset`; the last moment found."""
    found = None
    for now in range(since, until + 1, SECOND):
        if watch.wants_answer(now):
            watch.answered(offset, now)
        found = watch.no_payment_until(offset) or found
    return found


def test_two_answers_a_timeout_apart_say_that_nothing_came_until_the_second() -> None:
    watch = IdleWatch(TIMEOUT)
    assert quiet(watch, 7, 0, TIMEOUT - SECOND) is None
    assert quiet(watch, 7, TIMEOUT, TIMEOUT + 5 * SECOND) in range(TIMEOUT, TIMEOUT + 6 * SECOND)


def test_without_an_answer_nothing_is_known_however_long_it_takes() -> None:
    watch = IdleWatch(TIMEOUT)
    watch.answered(7, 0)
    assert watch.no_payment_until(7) is None
    for now in range(SECOND, 100 * TIMEOUT, 10 * SECOND):
        watch.no_answer(now)
        assert watch.no_payment_until(7) is None
    # Producers may have waited for the broker: the silence is counted from its first answer.
    watch.answered(7, 100 * TIMEOUT)
    assert watch.no_payment_until(7) is None


def test_a_payment_ends_the_silence() -> None:
    watch = IdleWatch(TIMEOUT)
    assert quiet(watch, 7, 0, TIMEOUT - SECOND) is None
    watch.payment_came()
    assert quiet(watch, 8, TIMEOUT, 2 * TIMEOUT - SECOND) is None
    assert quiet(watch, 8, 2 * TIMEOUT, 2 * TIMEOUT + 5 * SECOND) is not None


def test_an_end_that_is_still_ahead_says_nothing_until_the_position_has_reached_it() -> None:
    watch = IdleWatch(TIMEOUT)
    watch.answered(7, 0)
    assert watch.no_payment_until(7) is None
    watch.answered(1_000, 2 * TIMEOUT)
    for offset in (8, 500, 999):
        # A later answer does not take its place: a position behind a moving end would never be
        # there.
        watch.answered(offset + 1_000, 3 * TIMEOUT)
        assert watch.no_payment_until(offset) is None
    # Not until now: there may be a backlog behind it.
    assert watch.no_payment_until(1_000) == 2 * TIMEOUT


def test_never_asks_where_the_rule_is_off() -> None:
    watch = IdleWatch(None)
    assert not watch.wants_answer(10**15)
    assert watch.no_payment_until(0) is None


def test_the_broker_is_asked_every_few_seconds_at_most() -> None:
    watch = IdleWatch(TIMEOUT)
    watch.answered(7, 0)
    assert not watch.wants_answer(5 * SECOND - 1)
    assert watch.wants_answer(5 * SECOND)
    assert IdleWatch(8 * SECOND).wants_answer(0)


def test_a_clock_that_is_set_back_does_not_end_the_questions() -> None:
    watch = IdleWatch(TIMEOUT)
    watch.answered(7, 1_000 * TIMEOUT)
    assert watch.no_payment_until(7) is None
    assert watch.wants_answer(0)
    # The silence is counted by the clock as it is now.
    assert quiet(watch, 7, 0, TIMEOUT - SECOND) is None
    assert quiet(watch, 7, TIMEOUT, TIMEOUT + 5 * SECOND) is not None
