"""An explanation with copies: the spread of its map, what is printed and written, and cells that fade in the figure."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_faith import Explainer
from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.perturb.copies import Copies
from cxr_faith.report.figures import STRONGEST_ALPHA, draw_map, scaled

PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]
QUESTION = "Is there a nodule?"


def test_the_map_stays_and_its_spread_stands_beside_it(bundled) -> None:
    plain = Explainer(bundled).explain(PICTURE, QUESTION, "gradient")
    with_spread = Explainer(bundled, copies=Copies(3)).explain(PICTURE, QUESTION, "gradient")
    np.testing.assert_array_equal(with_spread.map, plain.map)
    assert plain.spread is None and plain.stable_share is None and "map_std" not in plain.to_dict()
    assert with_spread.spread.shape == plain.map.shape and with_spread.spread.max() > 0
    content = json.loads(json.dumps(with_spread.to_dict()))
    np.testing.assert_allclose(content["map_std"], with_spread.spread, rtol=1e-6)
    assert 0 < content["stable_share"] == with_spread.stable_share < 1


def test_paraphrases_and_masks_have_spreads_of_their_own(bundled) -> None:
    wordings = ("Please look: {question}", "{question} Answer.")
    by_words = Explainer(bundled, copies=Copies(2, "paraphrase", wordings=wordings))
    worded = by_words.explain(PICTURE, QUESTION, "gradient")
    maps = [Explainer(bundled).explain(PICTURE, text.replace("{question}", QUESTION), "gradient") for text in wordings]
    if {one.answer for one in maps} == {worded.answer}:  # the same score in other words
        own = [worded.map, *(one.map for one in maps)]
        np.testing.assert_allclose(worded.spread, np.std(own, axis=0, ddof=1), rtol=1e-4)
    masked = Explainer(bundled, copies=Copies(2, "mask")).explain(PICTURE, QUESTION, "gradient")
    assert masked.spread.max() > 0 and worded.spread.max() > 0 and not np.allclose(masked.spread, worded.spread)


def test_unsure_cells_fade_in_proportion() -> None:
    values = np.random.default_rng(0).random((4, 5))
    sure = np.random.default_rng(1).random((4, 5))
    picture = np.zeros((40, 50), np.uint8)
    drawn, _ = draw_map(Figure().add_axes((0, 0, 1, 1)), picture, values, sure=sure)
    np.testing.assert_allclose(drawn.get_alpha(), STRONGEST_ALPHA * scaled(values)[0] * sure)


@pytest.mark.slow
def test_the_command_says_how_sure_the_map_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", str(PICTURE), "--question", QUESTION, "--method", "attention", "--out", str(tmp_path)]
    assert main([*words, "--uncertainty", "2"]) == 0
    content = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert f"sure        {content['stable_share']:.0%} of the cells keep their rank" in capsys.readouterr().out
    assert np.shape(content["map_std"]) == np.shape(content["map"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--uncertainty", "1"), "--uncertainty must be at least 2 copies, got 1"),
        (("--uncertainty", "2", "--target", "tokens"), "--uncertainty, --pair want one target"),
        (("--uncertainty", "2", "--uncertainty_source", "paraphrase"), "paraphrase: give --paraphrases"),
        (
            ("--uncertainty", "2", "--uncertainty_source", "paraphrase", "--options", '["a", "b"]'),
            "paraphrase: leave out --options",
        ),
        (
            ("--uncertainty", "2", "--uncertainty_source", "luck"),
            "uncertainty_source must be one of noise",
        ),
    ],
)
def test_a_wrong_number_is_one_line(more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(PICTURE), "--question", QUESTION, *more]) == 2
    assert message in capsys.readouterr().err
