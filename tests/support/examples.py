"""How many examples a property test tries: as many as it asks for, or a tenth of them.

`pytest --hypothesis-profile=fast` chooses the tenth. Source of profiles:
https://hypothesis.readthedocs.io/en/latest/tutorial/settings.html
"""

from hypothesis import settings

_DEFAULT_EXAMPLES = 100  # Hypothesis's own number, for tests that ask for none

settings.register_profile("fast", max_examples=_DEFAULT_EXAMPLES // 10, deadline=None)


def examples(count: int) -> settings:
    """Settings for `count` examples without a deadline for each; fewer under `fast`."""
    current: int = settings().max_examples
    return settings(max_examples=max(1, count * current // _DEFAULT_EXAMPLES), deadline=None)
