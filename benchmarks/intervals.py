"""Which intervals and tests hold for skewed patients? `python benchmarks/intervals.py`: a few minutes on one core.

Simulates data sets whose true mean is 0: patients of 1 to 6 questions, whose values are skewed by -2.5 as the patients'
srg is, and answers whose effects differ. Prints the share of data sets whose 95 % interval holds the truth, and the
share in which p is at most .05, which should be 5 %.
"""

import numpy as np

from cxr_faith.metrics.statistics import RESAMPLES, Estimates, estimate

PATIENTS = (10, 15, 30, 60)
SEEDS, DATA_SETS = 5, 1000
SHAPE = 0.64
"""Of the gamma distribution, whose skew is 2 / √shape."""


def skewed(n_patients: int, seed: int) -> Estimates:
    """Estimates from `DATA_SETS` data sets of one seed."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    means = -0.2 * (rng.gamma(SHAPE, 1.0, (n_patients, DATA_SETS)) - SHAPE) / SHAPE**0.5
    values = means[patient] + 0.05 * rng.standard_normal((len(patient), DATA_SETS))
    return estimate(values, patient, rng.gamma(4.0, 2.5, (len(patient), 1)), tests=RESAMPLES)


def main() -> None:
    """Print a row for each number of patients."""
    print(f"{SEEDS * DATA_SETS:,} data sets, skew {-2 / SHAPE**0.5:.1f}")
    print("          95 % interval holds the truth   p at most .05 without a difference")
    print("patients  bootstrap-t    BCa  percentile  bootstrap-t  sign flips")
    for n_patients in PATIENTS:
        shares = []
        for seed in range(SEEDS):
            one = skewed(n_patients, 100 * n_patients + seed)
            ends = ((one.t_low, one.t_high), (one.bca_low, one.bca_high), (one.low, one.high))
            holds = [(low <= 0) & (high >= 0) for low, high in ends]
            shares.append([*holds, one.p <= 0.05, one.p_sign_flip <= 0.05])
        t, bca, percentile, p_t, p_flips = np.mean(shares, axis=(0, 2))
        print(f"{n_patients:8}  {t:11.1%}  {bca:5.1%}  {percentile:10.1%}  {p_t:11.1%}  {p_flips:10.1%}", flush=True)


if __name__ == "__main__":
    main()
