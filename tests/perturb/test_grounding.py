"""Is an answer grounded? Without the mask's cells, and without as many others, of models that are known exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.grounding import Regions, regions_of, score_regions
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.perturb.whole_passes import score_pictures
from tests.analytic import MARGIN, LinearVLM, blind, one_cell, picture
from tests.reference.image_use import is_away

GRID = (5, 6)


def mask_of(*cells: tuple[int, int], grid: tuple[int, int] = GRID) -> torch.Tensor:
    mask = torch.zeros(grid)
    for cell in cells:
        mask[cell] = 0.2  # touched
    return mask


def lungs(rows: slice, columns: slice, grid: tuple[int, int] = GRID) -> torch.Tensor:
    share = torch.zeros(grid)
    share[rows, columns] = 1
    return share


def test_cells_away_are_as_many_inside_the_lungs_and_do_not_touch_the_mask() -> None:
    organs = {"left lung": lungs(slice(0, 4), slice(0, 3)), "right lung": lungs(slice(0, 4), slice(3, 6))}
    organs |= {"heart": lungs(slice(4, 5), slice(0, 6))}
    inside, seen = sum(organs[name] for name in ("left lung", "right lung")).bool(), set()
    finding = mask_of((1, 1), (1, 2))
    for image in range(12):
        regions = regions_of(finding, organs, torch.zeros(3, 20, 36), 1, f"i{image}", 0)
        assert regions is not None and regions.away is not None
        assert np.array_equal(regions.mask, finding.numpy().ravel() > 0)
        away = regions.away.reshape(GRID)
        assert is_away(finding.numpy() > 0, away, inside)
        rows, columns = np.nonzero(away)
        assert np.ptp(rows) + np.ptp(columns) == 1  # in one piece
        seen.add(bytes(regions.away))
    assert len(seen) > 3
    again = regions_of(finding, organs, torch.zeros(3, 20, 36), 1, "i11", 0)
    assert again is not None and again.away is not None and bytes(again.away) == bytes(regions.away)


def test_without_lungs_the_body_counts_and_without_room_nothing() -> None:
    pixels = picture(LinearVLM({"q": np.ones(GRID)}))
    height, width = (side // cells for side, cells in zip(pixels.shape[1:], GRID, strict=True))
    pixels[:, :, : 3 * width] = -1  # the left half is black
    for image in range(8):
        regions = regions_of(mask_of((0, 5)), {}, pixels, 1, f"i{image}", 0)
        assert regions is not None and regions.away is not None
        assert not regions.away.reshape(GRID)[:, :3].any()
        body = regions_of(mask_of((0, 5)), {"body": lungs(slice(4, 5), slice(0, 2))}, pixels, 1, f"i{image}", 0)
        assert body is not None and body.away is not None and body.away.reshape(GRID)[4, :2].sum() == 1
    wide = regions_of(torch.ones(GRID), {}, pixels, 1, "i", 0)
    assert wide is not None and wide.away is None
    assert regions_of(None, {}, pixels, 1, "i", 0) is None and regions_of(mask_of(), {}, pixels, 1, "i", 0) is None


def test_of_several_pictures_the_one_with_the_mask_counts() -> None:
    grid, pixels = (10, 6), torch.randn(3, 40, 36, generator=torch.Generator().manual_seed(0))
    for image in range(8):  # a mask at the upper end of the second picture touches nothing of the first
        regions = regions_of(mask_of((5, 1), grid=grid), {}, pixels, 2, f"i{image}", 0)
        assert regions is not None and regions.away is not None and not regions.away.reshape(grid)[:5].any()


@pytest.mark.parametrize(("looks", "on_it"), [(True, True), (True, False), (False, True)])
def test_answers_of_known_models(looks: bool, on_it: bool) -> None:
    """One that reads a single cell says yes for it alone; one that reads none never changes its answer."""
    vlm, cell = one_cell("q") if looks else (blind("q"), 22)
    pixels = picture(vlm).abs()
    # Bright where it is read, dark where it is removed.
    prompt, removed, cells = vlm.prompt("q"), -pixels, np.arange(30)
    mask, away = (cells == cell, cells == 0) if on_it else (cells == 0, cells == cell)
    engine, before = Engine(vlm), vlm.counts.snapshot()
    s = float(score_pictures(engine, [pixels], [prompt], [MARGIN], [[0]])[0].s[0])
    target = replace(MARGIN, sign=1 if s >= 0 else -1)

    def run(plan):
        return engine.run(pixels, removed, plan, [prompt] * 3, [target] * 3)

    rows = score_regions(run, 30, [Regions(mask, away), None, Regions(mask, None)])
    assert rows[1] == {} and rows[2]["away_removal_keeps"] is None
    assert rows[0] == {
        "mask_cells": 1,
        "mask_removal_flips": looks and on_it,
        "away_removal_keeps": not looks or on_it,
    }
    assert (vlm.counts - before).forwards == 1 + 2 + 1


def test_whole_pictures_are_encoded_once_and_scored_for_those_who_ask() -> None:
    vlm = LinearVLM({"a": np.ones((2, 3)), "b": -np.eye(2, 3)}, bias={"b": 1.0})
    pictures = [picture(vlm, seed) for seed in range(5)]
    prompts, wanted = [vlm.prompt(name) for name in "ab"], [[4, 0], [1, 2, 0]]
    engine, before = Engine(vlm, micro_batch=2), vlm.counts.snapshot()
    scores = score_pictures(engine, pictures, prompts, [MARGIN] * 2, wanted)
    spent = vlm.counts - before
    assert spent.encode == spent.prefill == 5 and spent.forwards == 5
    for prompt, mine, places in zip(prompts, scores, wanted, strict=True):
        expected = [float(vlm.logit(vlm.encode(pictures[place][None]), prompt)) for place in places]
        assert mine.s.tolist() == pytest.approx(expected, abs=1e-6)
    blank = Substrate("mean").apply(pictures[0][None], ["i"], 0)[0]
    assert torch.allclose(blank, pictures[0].mean((1, 2))[:, None, None].expand_as(blank), atol=1e-6)
