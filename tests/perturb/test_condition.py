"""Small changes of a picture, and seeds."""

import numpy as np
import pytest
import torch

from cxr_faith.perturb.condition import Condition
from cxr_faith.perturb.schedule import stream
from cxr_faith.protocol import Protocol


@pytest.fixture
def pixels():
    return torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(0))


def test_shift_goes_down_and_to_the_right(pixels):
    computed = Condition.parse("shift:2").apply(pixels, "a", 0)
    for row in range(9):
        for column in range(12):
            assert torch.equal(computed[:, row, column], pixels[:, max(row - 2, 0), max(column - 2, 0)])


def test_contrast_keeps_the_mean_of_each_channel(pixels):
    computed = Condition.parse("contrast:0.95").apply(pixels, "a", 0)
    torch.testing.assert_close(computed.mean((1, 2)), pixels.mean((1, 2)))
    torch.testing.assert_close(computed.std((1, 2)), 0.95 * pixels.std((1, 2)))


def test_noise_is_one_field_that_depends_on_image_and_seed(pixels):
    noise = Condition.parse("noise:0.02")
    added = noise.apply(pixels, "a", 3) - pixels
    expected = 0.02 * float(pixels.std()) * stream(3, "a", "small_noise").standard_normal((9, 12))
    np.testing.assert_allclose(added[1].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(added[0], added[2], rtol=0, atol=1e-6)
    for other in (noise.apply(pixels, "b", 3), noise.apply(pixels, "a", 4)):
        assert not torch.equal(other, pixels + added)


def test_a_seed_leaves_the_picture_and_changes_the_protocol(pixels):
    assert Condition.parse("seed:1").apply(pixels, "a", 0) is pixels
    protocol = Protocol(seed=5, conditions=("seed:2", "shift:2.0"))
    assert protocol.conditions == ("seed:2", "shift:2")
    assert [protocol.under(condition).seed for condition in ("none", *protocol.conditions)] == [5, 7, 5]


@pytest.mark.parametrize("spec", ["rotate:2", "shift", "shift:1.5", "shift:-2", "contrast:0", "noise:x", "seed:0.5"])
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(ValueError, match=f"condition '{spec}'"):
        Condition.parse(spec)


def test_conditions_must_differ():
    with pytest.raises(ValueError, match="must each be listed once"):
        Protocol(conditions=("shift:2", "shift:2.0"))
