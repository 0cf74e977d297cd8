"""The interval of a share holds the share, at 0 and 1 too, whatever is rounded."""

from fractions import Fraction

import pytest

from cxr_faith.metrics.shares import wilson


def test_the_interval_holds_its_share_at_any_number() -> None:
    for n in range(1, 2000):
        assert wilson(0.0, n)[0] == 0.0 < wilson(0.0, n)[1]
        assert wilson(1.0, n)[0] < 1.0 == wilson(1.0, n)[1]


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (9, 10), (250, 1000)])
def test_the_ends_solve_wilsons_equation(hits: int, n: int) -> None:
    """Each end p is where the share lies 1.96 standard errors of p away: (share - p)² = z² p (1 - p) / n."""
    z, share = Fraction(1959963984540054, 10**15), Fraction(hits, n)
    for end in map(Fraction, wilson(hits / n, n)):
        assert float((share - end) ** 2 - z**2 * end * (1 - end) / n) == pytest.approx(0, abs=1e-12)


def test_no_observation_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an observation"):
        wilson(0.5, 0)
