"""Sanity checks on the bundled model: what must change does, and a method that ignores the model is caught."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console

from cxr_faith.__main__ import main
from cxr_faith.attribution import Attribution, Method, build_methods
from cxr_faith.cases import read_answers
from cxr_faith.checks.randomization import random_stages, randomize
from cxr_faith.checks.sanity import _alike, chance_likeness, partners, picture_interval, sanity
from cxr_faith.checks.sanity_result import CHANGED, SMALL_CHANGES, Likeness, render_sanity
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import Protocol
from cxr_faith.records import RecordWriter
from cxr_faith.report.leaderboard import render_leaderboard
from cxr_faith.summary.summarize import write_summary
from cxr_faith.vlm import Gemma3VLM
from tests.random_model import random_model, random_processor
from tests.synthetic import make_rows

ASKED = ("Is there a nodule?", "Is there a pleural effusion?", "Is there a consolidation?")


class Picture(Method):
    """Brightness of the cells: never looks at the model, and is no registered control."""

    def attribute(self, vlm, batch, target):
        return Attribution(torch.nn.functional.adaptive_avg_pool2d(batch.pixels.mean(1, keepdim=True), vlm.grid)[:, 0])


@pytest.fixture(scope="module")
def vlm():
    processor = random_processor()
    return Gemma3VLM(random_model(processor.tokenizer, seed=1), processor, source="random")


@pytest.fixture(scope="module")
def result(vlm, pictures):
    images = list(pictures(vlm, 3, seed=4))
    cases = [
        read_answers(vlm, p, f"i{i}", [q], ["yes_no"], Protocol())[0]
        for i, (p, q) in enumerate(zip(images, ASKED, strict=True))
    ]
    methods = build_methods({"gradient": {}, "chefer": {}, "random_map": {}, "edges": {}}) | {"picture": Picture()}
    return sanity(Engine(vlm), methods, images, cases, Protocol())


def last(method):
    """Likeness with all layers random."""
    return list(method.cascade.values())[-1]


def test_a_method_that_ignores_the_model_fails_and_controls_do_not(result):
    methods = result.methods
    assert methods["picture"].failed and last(methods["picture"]).spearman == pytest.approx(1)
    assert not methods["edges"].failed and last(methods["edges"]).spearman == pytest.approx(1)
    assert methods["edges"].control and not methods["chefer"].control
    assert not methods["gradient"].failed and last(methods["gradient"]).spearman < 0.5


def test_a_method_fails_if_its_interval_lies_above_chance(result):
    """No fixed cut: the interval of the likeness to a random model against pairs of different pictures."""
    for method in result.methods.values():
        low, high = method.interval
        assert low <= last(method).spearman <= high and -1 <= method.chance <= 1
        assert method.failed == (not method.control and low > method.chance)
    shown = result.methods["picture"].to_dict()
    assert shown["chance"] == result.methods["picture"].chance < 1 and shown["interval"][0] == pytest.approx(1)


def test_chance_takes_pairs_of_different_pictures_and_the_interval_whole_pictures():
    rng = np.random.default_rng(0)
    cases, maps = [SimpleNamespace(image_id=name) for name in "aabbcd"], list(rng.random((6, 5, 5)))
    pairs = [(i, j) for i in range(6) for j in range(i) if cases[i].image_id != cases[j].image_id]
    values = [scipy.stats.spearmanr(maps[i].ravel(), maps[j].ravel()).statistic for i, j in pairs]
    assert len(pairs) == 13 and chance_likeness(maps, cases) == pytest.approx(np.quantile(values, 0.95))
    assert chance_likeness(maps[:2], cases[:2]) is None
    given = np.array([0.1, 0.3, 0.5, np.nan, 0.2, 0.9])
    means = [0.2, 0.5, 0.2, 0.9]
    expected = scipy.stats.t.interval(0.95, 3, np.mean(means), scipy.stats.sem(means))
    assert picture_interval(given, cases) == pytest.approx(expected)
    assert picture_interval(given[:2], cases[:2]) is None


def test_another_picture_is_another_picture():
    """Questions about one picture follow each other in a manifest."""
    cases = [SimpleNamespace(image_id=name) for name in "aaabbc"]
    assert partners(cases) == [3, 3, 3, 5, 5, 0]
    with pytest.raises(ValueError, match="two pictures"):
        partners(cases[:3])


def test_a_map_that_cannot_be_compared_passes_no_test(vlm, pictures):
    class Constant(Method):
        def attribute(self, vlm, batch, target):
            return Attribution(torch.ones(len(batch.pixels), *vlm.grid))

    model = Gemma3VLM(random_model(vlm.processor.tokenizer, seed=2), vlm.processor, source="random")
    images = list(pictures(model, 2, seed=4))
    cases = [read_answers(model, p, f"i{i}", ASKED[:1], ["yes_no"], Protocol())[0] for i, p in enumerate(images)]
    measured = sanity(Engine(model), {"constant": Constant()}, images, cases, Protocol())
    assert measured.methods["constant"].failed is None
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_sanity(measured))
    assert "not measured" in console.export_text()


def test_the_cascade_goes_from_the_top_down(result, vlm):
    stages = list(result.methods["gradient"].cascade)
    assert stages == ["decoder 3–4", "decoder 2", "decoder 1", "decoder 0", "projector", "tower 1", "tower 0"]
    named = {name for _, names in random_stages(vlm) for name in names}
    kept = {name for name, _ in vlm.model.named_parameters()} - named
    assert kept and not any("layers" in name or "projector" in name for name in kept)
    first = result.methods["gradient"].cascade["decoder 3–4"].spearman
    assert 0 < first < 1  # one block alone already moves the maps, but not to noise


def test_changed_inputs_change_maps_as_they_must(result):
    methods = result.methods
    assert methods["edges"].inputs["no question"].spearman == pytest.approx(1)
    assert methods["edges"].inputs["other picture"].spearman < 0.9
    assert methods["edges"].inputs["blank picture"].spearman is None  # a flat map has no ranks
    # The L2 norm of a gradient does not know the sign of the score.
    assert methods["gradient"].other_answer.spearman == pytest.approx(1, abs=1e-6)
    assert methods["chefer"].other_answer.spearman < 0.99
    assert set(result.answers_kept) == {*CHANGED, *SMALL_CHANGES}


def test_only_yes_no_questions_are_asked_for_the_other_answer(vlm, pictures):
    images = list(pictures(vlm, 3, seed=4))
    kinds = ["yes_no", "open", "yes_no"]
    cases = [
        read_answers(vlm, p, f"i{i}", [q], [kind], Protocol())[0]
        for i, (p, q, kind) in enumerate(zip(images, ASKED, kinds, strict=True))
    ]
    asked = [case for case in cases if case.target is not None and case.target.kind == "margin"]
    assert len(asked) == 2 < len(cases)
    gradient = sanity(Engine(vlm), build_methods({"gradient": {}}), images, cases, Protocol()).methods["gradient"]
    assert gradient.other_answer.spearman == pytest.approx(1, abs=1e-6)


def test_small_changes_change_little(result):
    for change in list(SMALL_CHANGES)[1:]:
        assert result.methods["picture"].inputs[change].spearman > 0.95
        assert result.answers_kept[change] == 1
    shifted = result.methods["picture"].inputs["shift 2 px"].spearman
    assert 0.5 < shifted < 1


def test_shuffling_keeps_the_numbers_and_is_seeded(pictures):
    processor = random_processor()
    vlms = [Gemma3VLM(random_model(processor.tokenizer, seed=1), processor, source="random") for _ in range(2)]
    name = "model.language_model.layers.2.mlp.up_proj.weight"
    before = dict(vlms[0].model.named_parameters())[name].clone()
    for vlm in vlms:
        randomize(vlm, [name], seed=3)
    after, again = (dict(vlm.model.named_parameters())[name] for vlm in vlms)
    assert torch.equal(after, again) and not torch.equal(after, before)
    assert torch.equal(after.flatten().sort().values, before.flatten().sort().values)


def test_likeness_leaves_out_what_is_missing():
    maps = list(np.random.default_rng(0).random((3, 6, 6)))
    holes = [maps[0], np.full((6, 6), np.nan), maps[2]]
    assert _alike(maps, holes).spearman == pytest.approx(1)
    assert _alike(maps[:1], holes[1:2]) == Likeness(None, None, None)


def test_the_table_shows_the_first_the_middle_and_the_last_stage(result):
    table = render_sanity(result)
    stages = list(result.methods["chefer"].cascade)
    shown = [stages[0], stages[len(stages) // 2], stages[-1]]
    assert [column.header for column in table.columns][-4:] == [*shown, "verdict"]
    assert len(table.columns) == 1 + 1 + len(CHANGED) + 1 + 1 + 3 + 1 and table.row_count == 5
    assert "FAIL" in list(table.columns[-1].cells) and "control" in list(table.columns[-1].cells)


def test_the_leaderboard_marks_who_failed(run_dir):
    verdicts = {"chefer": True, "attention": False}
    (run_dir / "sanity.json").write_text(json.dumps({"methods": {n: {"failed": f} for n, f in verdicts.items()}}))
    summary = write_summary(run_dir)
    assert {row.method for row in summary.board().rows if row.sanity_failed} == {"chefer"}
    assert "Failed the sanity check" in "\n".join(summary.warnings)
    table = render_leaderboard(summary)
    assert "chefer†" in [str(cell) for cell in table.columns[0].cells] and "† failed" in str(table.caption)
    (run_dir / "sanity.json").write_text("[]")
    with pytest.raises(ValueError, match="not a result of"):
        write_summary(run_dir)


@pytest.mark.slow
def test_the_command_on_the_bundled_model(tmp_path, capfd):
    methods = json.dumps({"attention": {}, "chefer": {}, "integrated_gradients": {"steps": 8}})
    arguments = ["--config", "configs/demo.yaml", "--model.methods", methods, "--samples", "2"]
    status = main(["sanity", *arguments, "--run_dir", str(tmp_path)])
    assert status == 0 and "chefer" in capfd.readouterr().out
    entries = json.loads((tmp_path / "sanity.json").read_text())["methods"]
    real = [name for name, entry in entries.items() if not entry["control"]]
    assert not any(entries[name]["failed"] for name in real) and "integrated_gradients" in real


@pytest.fixture
def run_dir(tmp_path):
    """Synthetic records of the report's tests."""
    RecordWriter(tmp_path, rank=0, start=0).write(make_rows())
    return tmp_path
