"""What the engine leaves out, by counts: passes, waits of the host, bytes; and off, every result is the same bits."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cxr_faith.attribution import build_methods
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.scoring import score_image
from tests.analytic import MARGIN

ATEN = torch.ops.aten
QUESTIONS = ["Is there a nodule?", "Any opacity?"]
PROTOCOL = Protocol(steps=4, random_orders=4, max_new_tokens=1)
BLUR = Substrate.parse("blur:0.1")


class HostWaits(TorchFunctionMode):
    """Notes each call that hands numbers of a tensor to Python."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Notes operations that an accelerator's host would wait for, and the tensors that operations write."""

    WAITS = (ATEN._local_scalar_dense, ATEN.lift_fresh, ATEN.nonzero, ATEN.masked_select, ATEN._unique2)

    def __init__(self):
        super().__init__()
        self.seen, self.shapes, self.written = [], set(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in self.WAITS and (not isinstance(result, torch.Tensor) or result.numel()):
            self.seen.append(function.overloadpacket.__name__)  # a tensor without values is nothing to wait for
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in inputs:  # no view
                self.shapes.add(tuple(tensor.shape))
                self.written += tensor.numel() * tensor.element_size()
        return result


def watched(engine, run):
    """(what Python asked for, operations) of a run; the tensors that are made once have been made before."""
    engine.run(*run)
    with HostWaits() as asked, Operations() as operations:
        engine.run(*run)
    return asked.seen + operations.seen, operations


class Products(TorchDispatchMode):
    """Notes how many rows are multiplied with each [1, length, length] matrix of attention."""

    def __init__(self, length):
        super().__init__()
        self.length, self.rows = length, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket is ATEN.bmm and args[1].shape == (1, self.length, self.length):
            self.rows.append(args[0].shape[1])
        return function(*args, **(kwargs or {}))


@pytest.fixture
def run(random_vlm, pictures):
    """Arguments of `Engine.run`: two questions about 16 pictures."""
    original = pictures(random_vlm, 1)[0]
    removed = BLUR.apply(original[None], ["a"], 0)[0]
    plan, k = Plan(random_vlm.n_cells), schedule(random_vlm.n_cells, 8)
    for order in random_orders(random_vlm.n_cells, 2, np.random.default_rng(0)):
        for question, mode in enumerate(("deletion", "insertion")):
            plan.add(question, keep_masks(order, k, mode))
            plan.add(1 - question, keep_masks(order, k, mode))
    return original, removed, plan, [random_vlm.prompt(q) for q in QUESTIONS], [MARGIN] * 2


def test_the_host_never_waits_inside_the_loop(random_vlm, run):
    """Masks and their places go to the device once, and Python gets the scores once, however many batches there are."""
    assert len(run[2]) == 16
    for size in (1, 4, 16):
        seen, _ = watched(Engine(random_vlm, micro_batch=size), run)
        assert sorted(seen) == ["cpu", "lift_fresh", "lift_fresh"], size
    plan, order = run[2], np.random.default_rng(1).permutation(random_vlm.n_cells)
    plan.add(1, keep_masks(order, schedule(random_vlm.n_cells, 8), "deletion"))
    assert len(plan.groups()) > 1  # pictures that both questions need, and those of one
    assert sorted(watched(Engine(random_vlm, micro_batch=4), run)[0]) == ["cpu", "lift_fresh", "lift_fresh"]


def test_time_is_spent_in_the_model(bundled, pictures, monkeypatch):
    """Masks, composition and scores around its stages take little processor time: a share in one run."""
    pixels, spent = pictures(bundled, 1)[0], []
    removed, plan = BLUR.apply(pixels[None], ["a"], 0)[0], Plan(bundled.n_cells)
    order = np.random.default_rng(0).permutation(bundled.n_cells)
    plan.add(0, keep_masks(order, schedule(bundled.n_cells, 48), "deletion"))

    def timed(stage):
        def run(*args):
            begin = time.process_time()
            result = stage(*args)
            spent.append(time.process_time() - begin)
            return result

        return run

    engine, prompt = Engine(bundled, micro_batch=16), bundled.prompt(QUESTIONS[0])
    engine.run(pixels, removed, plan, [prompt], [MARGIN])
    for name in ("embed", "encode_embedded", "prefill", "score"):
        monkeypatch.setattr(bundled, name, timed(getattr(bundled, name)))
    begin = time.process_time()
    engine.run(pixels, removed, plan, [prompt], [MARGIN])
    assert len(spent) == 1 + 3 * 4  # 49 pictures
    assert sum(spent) > 0.85 * (time.process_time() - begin)


FAULTS = """
import resource, sys, torch
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.vlm import Gemma3VLM, Target, bundled_model

torch.set_num_threads(1)
vlm = Gemma3VLM.from_pretrained(bundled_model())
masks = torch.rand(64, vlm.n_cells, generator=torch.Generator().manual_seed(0)).numpy() < 0.5
plan, pixels = Plan(vlm.n_cells), torch.zeros(3, *vlm.image_size)
plan.add(0, masks)
for turn in range(3):  # glibc learns from what is freed
    for size in (None, 64):
        engine = Engine(vlm, micro_batch=size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        engine.run(pixels, pixels + 1, plan, [vlm.prompt("q")], [Target("margin")])
        print(turn, engine.micro_batch, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc gives large blocks back")
def test_memory_of_a_batch_is_used_again_by_the_next():
    """Page faults of 64 pictures once all is warm: with 16 together hardly any; with 64 each large tensor is new."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    (_, size, few), (_, _, many) = (map(int, line.split()) for line in done.stdout.splitlines()[-2:])
    assert size == 16 and few < 0.5 * many


def test_neither_pictures_nor_logits_of_the_vocabulary_are_made(random_vlm, run, monkeypatch):
    """Two pictures are cut into patches, a mask costs a byte a cell, and the head reads the yes and no rows alone."""
    _, operations = watched(Engine(random_vlm), run)
    several = {shape for shape in operations.shapes if shape[:1] == (16,)}
    assert several and not any(shape[1:2] == (3,) or shape[-1:] == random_vlm.image_size[1:] for shape in several)
    vocabulary = random_vlm.model.config.get_text_config().vocab_size
    assert not any(vocabulary in shape for shape in operations.shapes)
    lean = operations.written
    monkeypatch.setattr(random_vlm, "shortcuts", False)
    _, operations = watched(Engine(random_vlm), run)
    assert (16, 3, *random_vlm.image_size) in operations.shapes
    assert lean < 0.9 * operations.written


def test_a_picture_is_run_once_for_all_its_questions(random_vlm, run):
    """Bytes too: a second question on the cache costs its suffix alone."""
    _, both = watched(Engine(random_vlm), run)
    _, apart = watched(Engine(random_vlm, share=False), run)
    assert both.written < 0.4 * apart.written


def test_unshared_pictures_score_the_same_bits(random_vlm, pictures):
    """End points, reversed pairs, equal orders and the questions' common baselines, on and off."""
    pixels, made, spent = pictures(random_vlm, 1)[0], [], []
    cases = read_answers(random_vlm, pixels, "a", QUESTIONS, ["yes_no"] * 2, PROTOCOL)
    for index, case in enumerate(cases):
        case.maps = {name: np.random.default_rng(i).random((8, 8)) for i, name in enumerate(("same", f"own{index}"))}
    cases[1].maps["own1"] = cases[1].maps["own1"][::-1].copy()
    for share in (True, False):
        before = random_vlm.counts.snapshot()
        made.append(score_image(Engine(random_vlm, share=share), pixels, "a", cases, BLUR, PROTOCOL))
        spent.append([getattr(random_vlm.counts, s) - getattr(before, s) for s in ("encode", "prefill", "score")])
    np.testing.assert_equal(made[0], made[1])
    # The ends, and three inner points of both curves: the common map, two own ones, center, two random pairs.
    pictures_needed = 2 + 2 * 3 * (1 + 2 + 1 + 2)
    assert spent[0] == [pictures_needed, pictures_needed, 2 * (2 + 2 * 3 * (2 + 1 + 2))]
    assert spent[1] == [2 * (2 + 1 + 4) * 2 * 5] * 3


@pytest.mark.parametrize(
    ("name", "options", "ends"), [("integrated_gradients", {"steps": 5}, 2), ("smooth_grad", {"copies": 5}, 0)]
)
def test_points_of_a_path_and_noisy_copies_run_together(name, options, ends, random_vlm, pictures, monkeypatch):
    pixels, maps, calls = pictures(random_vlm, 1)[0], [], []
    trace = random_vlm.trace
    monkeypatch.setattr(random_vlm, "trace", lambda tokens, *args: calls.append(len(tokens)) or trace(tokens, *args))
    for together in (8, 1):
        (case,) = read_answers(random_vlm, pixels, "a", QUESTIONS[:1], ["yes_no"], PROTOCOL)
        methods = build_methods({name: options | {"micro_batch": together}})
        compute_maps(random_vlm, methods, [pixels], [case], 0, only_in_format=False)
        maps.append(case.maps[name])
    assert calls == [1] * ends + [5] + [1] * (ends + 5)
    assert np.abs(maps[0] - maps[1]).max() < 1e-5 * np.abs(maps[0]).max()


def test_rows_of_products_instead_of_matrices(random_vlm, pictures):
    """A layer's products are L² instead of L³; whole matrices give the same maps."""
    pixels, length, maps, products = pictures(random_vlm, 1)[0], random_vlm.prompt(QUESTIONS[0]).length, [], []
    for full in (False, True):
        (case,) = read_answers(random_vlm, pixels, "a", QUESTIONS[:1], ["yes_no"], PROTOCOL)
        methods = build_methods({name: {"full_matrices": full} for name in ("rollout", "chefer", "chefer_global")})
        with Products(length) as seen:
            compute_maps(random_vlm, methods, [pixels], [case], 0, only_in_format=False)
        maps.append(case.maps)
        products.append(seen.rows)
    layers, shared = len(random_vlm.layer_types), random_vlm.layer_types.count("full_attention")
    assert products == [[rows] * (2 * layers + shared) for rows in (1, length)]
    for name, values in maps[0].items():
        assert np.abs(values - maps[1][name]).max() < 1e-5 * np.abs(values).max() > 0, name
