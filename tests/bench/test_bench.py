"""The benchmark: its contestants do the same job, its counts and operations are right, and it fails when it must."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cxr_faith import protocol
from cxr_faith.__main__ import main
from cxr_faith.bench import flops as bench_flops
from cxr_faith.bench import random_model
from cxr_faith.bench import scene as scenes
from cxr_faith.bench.compare import measure
from cxr_faith.bench.engine import run_engine
from cxr_faith.bench.libraries import library_steps, missing, run_library
from cxr_faith.bench.naive import Naive
from cxr_faith.bench.presets import PRESETS, VOCABULARY, Preset
from cxr_faith.bench.turns import deletion_pictures, exact_counts
from cxr_faith.bench.variants import area_errors, rank_agreement
from cxr_faith.bench.work import engine_flops
from cxr_faith.curves import plan_curves
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.schedule import schedule
from tests.analytic import MARGIN

ROOT = Path(__file__).parents[2]
SHORT = Preset("random", exact=True, steps=4, random_orders=2, ig_steps=3, naive_batch=2, batches=(2,), repeats=1)


@pytest.fixture(scope="module")
def scene(random_vlm):
    return scenes.build_scene(SHORT, random_vlm)


@pytest.fixture(scope="module")
def result(scene):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "FINEST_STEPS", SHORT.steps)  # as in the full schedule, whose 50 steps are the finest
        return measure(scene)


def test_the_usual_recipe_makes_the_engines_maps_and_curves(scene, result):
    assert result.agreement.passed and 0 < result.agreement.difference < 1e-4
    naive, case = Naive(scene), scene.cases[1]
    with naive.eager():
        maps = naive.maps(case.prompt, case.target.sign, SHORT.ig_steps)
    assert maps.keys() == case.maps.keys()
    for name, values in maps.items():
        assert np.abs(values - case.maps[name]).max() < 1e-3 * np.abs(values).max(), name
    assert scene.vlm.model.config._attn_implementation == "sdpa"  # left as it was


def test_counts_are_those_of_the_schedule(scene, result):
    """9 curves (six maps, center, two random orders) of 5 points twice; the engine shares ends, pairs, baselines."""
    rows = {(row.name, row.questions): row for row in result.rows}
    assert rows["naive", 1].counts == {"forward": 1 + 9 * 2 * 5, "encode": 2, "trace": 5 + 3, "backward": 3 + 3}
    assert rows["naive", 3].counts["forward"] == 3 * 91
    assert rows["floor", 1].counts["encode"] <= 2 + 2 * 3 * 7 + 3 * 2  # fewer where orders coincide
    plan, _ = plan_curves(scene.vlm.grid, scene.image_id, scene.cases, scene.protocol)
    assert exact_counts(scene, range(3)) == (len(plan), plan.questions_asked)
    spent = rows["engine", 3].counts
    assert spent["score"] == plan.questions_asked + 3  # and the answers
    # Answers take 1 tower pass, the maps of each question 2: the picture and its substrate.
    assert (spent["encode"], spent["prefill"]) == (len(plan) + 1 + 2 * 3, len(plan) + 1)
    assert spent["backward"] == 3 * (1 + 3)  # one for both gradients and Chefer, and the path
    assert spent["trace"] == 3 * (1 + 1 + 1 + 2 + 3)  # attention, rollout, the shared one, the path's ends, the path
    assert deletion_pictures(scene) < len(plan)


def test_rows_and_ratios_belong_together(result):
    rows = {(row.name, row.questions): row for row in result.rows}
    engine, naive = rows["engine", 3], rows["naive", 3]
    ratio = result.ratios["naive ÷ engine, 3 questions"]
    assert ratio.median == pytest.approx(naive.seconds.median / engine.seconds.median)
    unmeasured = all(row.peak_memory is None for row in rows.values())  # where no peak can be forgotten
    for row in rows.values():
        assert unmeasured or row.peak_memory > result.weights_bytes
        assert row.seconds.min <= row.seconds.median <= row.seconds.max
        assert row.studies_per_hour == pytest.approx(3600 / row.seconds.median)
        speed = row.gflop / row.seconds.median
        assert row.mfu == pytest.approx(speed / result.matmul_peak_gflops)
    assert naive.gflop > 1.5 * engine.gflop > 0
    assert engine.seconds.median == pytest.approx(sum(engine.phases.values()))
    json.dumps(result.to_dict(), allow_nan=False)


def test_variants_stand_beside_the_exact_schedule(result):
    rows = {(row.name, row.questions): row for row in result.rows}
    # So short a schedule is all coarse points: nothing is left out, but each question's round is its own.
    assert rows["adaptive", 1].counts["score"] == rows["engine", 1].counts["score"]
    assert result.variants.auc_error is None  # no answer of a random model is large enough to score
    # Answers take 1 tower pass, the maps of each question 2, all curves 2.
    assert rows["tokens", 3].counts["encode"] == 1 + 2 * 3 + 2
    assert rows["tokens", 3].counts["prefill"] == rows["engine", 3].counts["prefill"]
    assert -1 <= result.variants.spearman.min <= result.variants.spearman.max <= 1
    for name in ("adaptive", "tokens"):
        ratio = result.ratios[f"naive ÷ {name}, 3 questions"].median
        expected = rows["naive", 3].seconds.median / rows[name, 3].seconds.median
        assert ratio == pytest.approx(expected)


def test_errors_of_areas_and_agreement_of_ranks():
    def row(deletion: float, insertion: float, **more: object) -> dict:
        """A record whose curves are level, so that their areas are these values."""
        curves = {"k": [0, 2, 4], "deletion_scores": [deletion] * 3, "insertion_scores": [insertion] * 3}
        return {"status": "ok", "effect": 2.0} | curves | more

    exact = {"a": row(1, 2), "b": row(1, 3), "c": row(1, 4), "random": row(1, 1), "broken": {"status": "invalid"}}
    near = {
        "a": row(1.006, 2, auc_error=0.004),
        "b": row(1, 3, auc_error=0.005),
        "c": row(1, 4, auc_error=0.0),
        "random": row(2, 2, auc_error=0.5),
        "broken": {"status": "invalid"},
        "lost": row(5, 5, status="degenerate", auc_error=float("nan")),
    }
    errors = area_errors([exact], [near])
    assert errors.largest == pytest.approx(0.003) and errors.stated == 0.005
    assert area_errors([exact], [{"broken": near["broken"], "random": near["random"]}]) is None
    assert rank_agreement([exact], [near]) == [pytest.approx(1)]
    assert rank_agreement([exact], [{**near, "b": row(1, 5)}]) == [pytest.approx(0.5)]


def test_operations_are_those_that_torch_counts(scene):
    vlm, prompt = scene.vlm, scene.cases[0].prompt
    naive = Naive(scene)
    with naive.eager(), FlopCounterMode(display=False) as counter:
        naive.answer(prompt)
    tower, length = bench_flops.tower_flops(vlm), prompt.length
    expected = tower + bench_flops.decoder_flops(vlm, length, length) + bench_flops.logits_flops(vlm, length)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


def test_the_engines_operations_are_those_that_it_makes(scene):
    """On the math path of attention, whose products the counter sees."""
    vlm, prompt, before = scene.vlm, scene.cases[0].prompt, scene.vlm.counts.snapshot()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        embedded = vlm.embed(scene.pixels[None].expand(2, -1, -1, -1))
        vlm.score(vlm.prefill(vlm.encode_embedded(embedded.repeat(2, 1, 1, 1))), prompt, MARGIN)
    spent = {stage: value - getattr(before, stage) for stage, value in vars(vlm.counts).items()}
    assert (spent["embed"], spent["encode"], spent["prefill"], spent["score"]) == (2, 4, 4, 4)
    # The yes and no rows are a sum, not a product.
    rows = 4 * 2 * vlm.model.config.get_text_config().hidden_size * (len(vlm.yes_ids) + len(vlm.no_ids))
    assert counter.get_total_flops() == pytest.approx(engine_flops(scene, spent) - rows, rel=2e-3)


def test_a_sample_stands_for_the_whole(random_vlm):
    sampled = scenes.build_scene(replace(SHORT, exact=False), random_vlm)
    result = measure(sampled)
    rows = {(row.name, row.questions): row for row in result.rows}
    assert not result.exact and result.agreement.passed
    assert rows["naive", 1].counts == {"forward": 91, "encode": 2, "trace": 8, "backward": 6}
    assert rows["engine", 3].counts["encode"] == exact_counts(sampled, range(3))[0]
    assert rows["engine", 3].counts["backward"] == 3 * (1 + 3)
    assert rows["engine", 1].seconds.median < rows["engine", 3].seconds.median


@pytest.mark.parametrize("name", ["torchcam", "quantus"])
def test_libraries_do_the_same_job(scene, name):
    if missing(name):
        pytest.skip(missing(name))
    case, steps = scene.cases[2], library_steps(scene.vlm.n_cells, 4)
    _, forwards, scores = run_library(name, scene, 2, steps)
    order = np.argsort(-case.maps["attention"].ravel(), kind="stable")
    naive, k = Naive(scene), schedule(64, steps)
    curves = [naive.curve(case.prompt, case.target.sign, order, k, mode) for mode in ("deletion", "insertion")]
    if name == "quantus":
        assert forwards == steps
        assert np.abs(np.array(scores) - curves[0][1:]).max() < 2e-5
    else:
        assert forwards == 2 * steps
        assert np.abs(np.array(scores) - [np.trapezoid(curve, k / 64) for curve in curves]).max() < 1e-5


def test_libraries_want_equal_steps():
    assert (library_steps(64, 8), library_steps(144, 50), library_steps(256, 50)) == (8, 48, 32)


def test_curves_that_differ_fail(tmp_path, capsys, monkeypatch, random_vlm):
    plain = Naive.curve
    monkeypatch.setattr(Naive, "curve", lambda self, *args: plain(self, *args) + 2e-4)
    monkeypatch.setattr(protocol, "FINEST_STEPS", SHORT.steps)
    monkeypatch.setitem(PRESETS, "tiny", SHORT)
    monkeypatch.setattr(scenes, "random_vlm", lambda shape: random_vlm)
    out = tmp_path / "bench.json"
    assert main(["bench", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "DISAGREE" in printed.out and "differ" in printed.err and printed.err.count("\n") == 1
    assert json.loads(out.read_text())["agreement"]["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'; there are tiny, small, medgemma-4b, families"),
        (["--preset", "medgemma-4b"], "needs a GPU"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_one_line(capsys, arguments, message):
    if torch.cuda.is_available() and "medgemma-4b" in arguments:
        pytest.skip("there is a GPU")
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--help"])
    assert stop.value.code == 0
    assert "cxr-faith bench --preset small" in capsys.readouterr().out


def test_shapes_are_gemmas(monkeypatch):
    """The vocabulary of Gemma 3, 256 image tokens, 20 to 100 M parameters for `small`."""
    with torch.device("meta"):
        weights = random_model.Gemma3ForConditionalGeneration
        monkeypatch.setattr(random_model, "_random_weights", lambda config, device: weights(config))
        vlm = random_model.random_vlm("small")
    assert vlm.n_cells == 256
    tied = [weight.numel() for name, weight in vlm.model.named_parameters() if name != "lm_head.weight"]
    assert vlm.model.config.tie_word_embeddings and 20e6 < sum(tied) < 100e6
    assert vlm.model.get_input_embeddings().num_embeddings == VOCABULARY


def test_the_engines_turn_answers_explains_and_scores(scene):
    turn, rows = run_engine(scene, Engine(scene.vlm), [0, 2])
    assert turn.seconds.keys() == {"answers", "maps", "curves"} and turn.total > 0
    assert len(rows) == 2 and {"attention", "center", "random"} <= rows[1].keys()


def test_the_file_has_the_keys_of_the_published_results(result):
    """`benchmarks/tiny.json` was written by an earlier version; who reads it must be able to read a new one."""
    published = json.loads((ROOT / "benchmarks" / "tiny.json").read_text())
    ours = {"preset": "tiny", **json.loads(json.dumps(result.to_dict()))}
    assert list(ours) == list(published)
    for name in ("machine", "schedule", "bare_ms", "memory", "variants", "agreement"):
        assert ours[name].keys() == published[name].keys(), name
    rows = [{row["name"]: list(row) for row in content["rows"]} for content in (ours, published)]
    assert all(rows[0][name] == rows[1][name] for name in ("naive", "engine", "floor", "adaptive", "tokens"))
