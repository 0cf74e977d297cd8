"""The samples that checks look at."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from cxr_faith.checks import samples
from cxr_faith.protocol import Protocol
from tests.analytic import blind


def test_a_model_that_answers_nothing_is_not_asked_about_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read_answers(vlm, pixels, image_id, questions, *rest):  # type: ignore[no-untyped-def]
        asked.append(image_id)
        return [SimpleNamespace(target=None, off_format=True, image_id=image_id)]

    def item(index: int) -> SimpleNamespace:
        sample = SimpleNamespace(image_id=str(index), question="Is it tilted?", kind="yes_no")
        return SimpleNamespace(image=torch.zeros(3, 6, 10), sample=sample, finding_cells=lambda grid: None)

    endless = SimpleNamespace(loader=lambda: ([item(2 * index), item(2 * index + 1)] for index in count()))
    monkeypatch.setattr(samples, "read_answers", read_answers)
    assert samples.read_cases(blind("Is it tilted?"), endless, Protocol(), 3) == ([], [])
    assert len(asked) == 3 * samples.LOOKED_AT
