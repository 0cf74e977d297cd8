"""The class of an answer against the slow one, and at its edges."""

import numpy as np
import pytest

from cxr_faith.metrics.image_use import IGNORES, MIXED, USES, Stand, goes, image_use
from tests.reference.image_use import use_of, use_of_tokens


def of_margin(margin: float, sign: int) -> Stand:
    return Stand(sign * margin, sign * margin)


def test_classes_are_those_of_the_slow_rule() -> None:
    rng, classes = np.random.default_rng(0), set()
    for margin, blank, swapped in rng.normal(0, 3, (300, 3)).tolist():
        sign = 1 if margin >= 0 else -1
        mine = image_use(*(of_margin(value, sign) for value in (margin, blank, swapped)))
        assert mine == use_of(margin, blank, swapped)
        tokens = [(blank, swapped), (swapped, blank)]
        assert image_use(Stand(margin, 1.0), *(Stand(*one) for one in tokens)) == use_of_tokens(margin, *tokens)
        classes.add(mine)
    assert classes == {USES, MIXED, IGNORES}


def test_half_of_the_score_may_go() -> None:
    """Also of a score below 0, as the log-odds of a long answer are."""
    assert [goes(Stand(4, 4), Stand(s, s)) for s in (2.0, 1.99, 9.0, -0.1)] == [False, True, False, True]
    assert [goes(Stand(-4, 1), Stand(s, 1)) for s in (-6.0, -6.01, -3.9)] == [False, True, False]
    assert goes(Stand(-4, 1), Stand(-4, -0.1))  # another word is likelier now


@pytest.mark.parametrize("other", [None, Stand(np.nan, np.nan)])
def test_what_was_not_measured_has_no_class(other: Stand | None) -> None:
    assert image_use(Stand(4, 4), Stand(1, 1), other) is None
    assert image_use(Stand(np.inf, 4), Stand(1, 1), Stand(1, 1)) is None
