"""How well the model answered, over samples: a sample has one answer, however many rows it has."""

from dataclasses import dataclass

import pandas as pd

from cxr_faith.summary.columns import mean, numbers
from cxr_faith.summary.result import Result


@dataclass(frozen=True)
class Answers(Result):
    """How the model answered over one slice of the samples."""

    slice: str
    """Which samples, as in `Board.slice`."""
    n_samples: int
    """Samples of the slice."""
    n_patients: int
    """Their patients; an image without a patient counts as one."""
    n_known: int
    """Samples whose answer is known to be right or wrong; an answer that cannot be read counts neither way."""
    accuracy: float | None
    """Share of those samples that are answered correctly."""
    yes_no_mass: float | None
    """Mean p(yes) + p(no)."""
    answer_mismatch: float | None
    """Share of the samples whose generated text contradicts the sign of the margin."""
    n_not_parsed: int | None = None
    """Samples with a reference whose answer could not be read (docs/answers.md)."""


def answers_of(name: str, samples: pd.DataFrame) -> Answers:
    """The answers of one slice.

    Args:
        name: name of the slice.
        samples: its rows of `samples.sample_table`.
    """
    return Answers(
        slice=name,
        n_samples=len(samples),
        n_patients=int(samples["patient"].nunique()),
        n_known=int(samples["correct"].notna().sum()),
        accuracy=mean(numbers(samples["correct"])),
        yes_no_mass=mean(numbers(samples["yes_no_mass"])),
        answer_mismatch=mean(numbers(samples["answer_mismatch"])),
        n_not_parsed=int(samples["not_parsed"].eq(True).sum()),
    )
