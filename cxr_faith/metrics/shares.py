"""Intervals of shares: of answers that flip, that use the picture, that stay."""

import math

_Z = 1.959963984540054  # .975 quantile of the normal distribution


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which is not empty at 0 and 1, unlike that of a bootstrap.

    Args:
        share: from 0 to 1.
        n: independent observations; with several of a patient, the number of patients, which errs on the wide side.

    Raises:
        ValueError: there is no observation.
    """
    if n < 1:
        raise ValueError("the interval of a share needs an observation")
    center, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    reach = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = (center - reach) / scale, (center + reach) / scale
    return min(max(low, 0.0), share), max(min(high, 1.0), share)  # rounding must not leave the share outside
