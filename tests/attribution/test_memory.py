"""Methods that keep graphs of several pictures: what fits into memory decides how many, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import measure
from cxr_faith.attribution import build_methods
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.protocol import Protocol

OPTIONS = {"integrated_gradients": {"steps": 6}, "smooth_grad": {"copies": 6}, "igos_pp": {"iterations": 2}}


def explain(vlm, pixels, methods):
    (case,) = read_answers(vlm, pixels, "a", ["Is there a nodule?"], ["yes_no"], Protocol(max_new_tokens=1))
    compute_maps(vlm, methods, [pixels], [case], seed=0, only_in_format=False)
    return case.maps


@pytest.mark.parametrize("name", OPTIONS)
def test_memory_that_runs_out_halves_what_runs_together(name, random_vlm, pictures, monkeypatch):
    pixels, trace, sizes = pictures(random_vlm, 1)[0], random_vlm.trace, []

    def limited(tokens, *arguments):
        sizes.append(len(tokens))
        if len(tokens) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return trace(tokens, *arguments)

    monkeypatch.setattr(random_vlm, "trace", limited)
    methods, limit = build_methods({name: OPTIONS[name]}), 4
    expected = explain(random_vlm, pixels, methods)[name]
    assert max(sizes) == 4
    limit = 1
    measured = explain(random_vlm, pixels, methods)[name]
    assert np.abs(measured - expected).max() < 1e-4 * np.abs(expected).max()
    sizes.clear()
    explain(random_vlm, pixels, methods)
    assert max(sizes) == 1  # halved for good
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        explain(random_vlm, pixels, methods)


@pytest.mark.slow
def test_what_the_documents_say_is_kept_of_a_4b_model():
    """Layers of the true shape."""
    measured, text = measure(), (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    for name, stated in [("decoder layer with its attention, MB", "42.8 MB"), ("tower layer, MB", "92.2 MB")]:
        assert f"{measured[name]:.3g} MB" == stated and stated in text
    for name in ("chefer", "integrated_gradients, 4 points", "smooth_grad and igos_pp, 4 pictures"):
        assert f"{measured[f'{name}, GB']:.3g} GB" in text
    # Methods take turns, so this is the peak of both.
    assert max(measured["chefer, GB"], measured["integrated_gradients, 4 points, GB"]) < 6
