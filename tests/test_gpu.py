"""On a GPU: each stage against the CPU in float32, the same bits twice, and a run of the command. `make test-gpu`.

Not measured yet: no GPU has run these tests.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.perturb.device_noise import device_noise
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, Target, bundled_model
from cxr_faith.vlm.devices import exact_arithmetic
from cxr_faith.vlm.micro_batch import out_of_memory
from tests.random_model import random_gemma
from tests.runs import cheap_options, records, run_here, write_config

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SEARCHES = ("cleann", "counterfactual", "eagle", "greedy", "igos_pp", "multi_scale")
"""Methods that decide by comparing scores: two that differ in the last bit may take different ways."""
QUESTION = "Is there a nodule?"


@pytest.fixture(scope="module")
def on_gpu() -> Gemma3VLM:
    return Gemma3VLM.from_pretrained(bundled_model(), "cuda", "float32")


@pytest.fixture(scope="module")
def both() -> tuple[Gemma3VLM, Gemma3VLM]:
    """The random model on the CPU and on the GPU."""
    exact_arithmetic(torch.device("cuda"))
    return random_gemma(), random_gemma().to("cuda")


def ask(vlm: Gemma3VLM, pixels: torch.Tensor) -> Case:
    (case,) = read_answers(vlm, pixels, "a", [QUESTION], ["yes_no"], Protocol(max_new_tokens=2))
    case.finding_cells = torch.eye(vlm.grid[0], device=pixels.device)
    return case


def scores(vlm: Gemma3VLM, pixels: torch.Tensor, spec: str = "blur:0.1", count: int = 40) -> torch.Tensor:
    plan, substrate = Plan(vlm.n_cells), Substrate.parse(spec)
    places = plan.add(0, np.random.default_rng(0).random((40, vlm.n_cells))[:count] < 0.5)
    removed, fill = substrate.apply(pixels[None], ["a"], 0)[0], substrate.fill(pixels, "a", 0, vlm.grid)
    run = Engine(vlm, micro_batch=16).run(pixels, removed, plan, [vlm.prompt(QUESTION)], [Target("margin")], fill)
    return run[0].s[places]


def test_the_model_answers_as_on_a_cpu(bundled, on_gpu, pictures):
    pixels = pictures(bundled, 1)[0]
    mine, theirs = ask(bundled, pixels).reply, ask(on_gpu, pixels.cuda()).reply
    assert mine.token_ids == theirs.token_ids and theirs.margin == pytest.approx(mine.margin, abs=1e-3)


@pytest.mark.parametrize("spec", ["blur:0.1", "mean", "zero", "noise", "road"])
def test_substrates_and_scores_are_those_of_a_cpu(bundled, on_gpu, pictures, spec):
    pixels = pictures(bundled, 1)[0]
    substrate = Substrate.parse(spec)
    removed = substrate.apply(pixels.cuda()[None], ["a"], 0).cpu()
    assert (removed - substrate.apply(pixels[None], ["a"], 0)).abs().max() < 1e-4
    assert (scores(on_gpu, pixels.cuda(), spec) - scores(bundled, pixels, spec)).abs().max() < 2e-3


def test_scores_are_the_same_bits_twice_and_in_another_batch(on_gpu, pictures):
    pixels = pictures(on_gpu, 1)[0].cuda()
    whole = scores(on_gpu, pixels)
    assert torch.equal(scores(on_gpu, pixels), whole)
    assert torch.equal(scores(on_gpu, pixels, count=5), whole[:5])


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"file"}))
def test_maps_are_those_of_a_cpu(both, pictures, random_sae, name):
    pixels, maps = pictures(both[0], 1)[0], []
    for vlm in both:
        picture = pixels.to(vlm.device)
        case = ask(vlm, picture)
        methods = build_methods({name: cheap_options(random_sae).get(name, {})})
        compute_maps(vlm, methods, [picture], [case], 0, only_in_format=False)
        maps.append(case.maps[name])
    assert np.isfinite(maps[1]).all()
    if name not in SEARCHES:
        assert np.abs(maps[0] - maps[1]).max() <= 1e-2 * np.abs(maps[0]).max()


def test_noise_is_the_same_bits_as_on_a_cpu():
    drawn = [device_noise(0, "a", "noise", "smooth_grad", 3, 10_000, torch.device(kind)) for kind in ("cpu", "cuda")]
    assert torch.equal(drawn[0], drawn[1].cpu())


def test_running_out_of_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert out_of_memory(caught.value)


def test_evaluate(tmp_path: Path):
    """In bfloat16, the default there; every sample is scored."""
    config = write_config(tmp_path, samples=3)
    assert run_here(config, tmp_path / "run", "--trainer.accelerator", "gpu") == 0
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["identity"]["model"]["dtype"] == "bfloat16"
    frame = records(tmp_path / "run")
    assert frame["sample_id"].nunique() == 3 and not frame["status"].eq("invalid").any()
