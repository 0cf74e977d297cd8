"""Runs methods, substrates and the engine on the CPU and on the pretended accelerator; prints a JSON object.

In a process of its own, since PyTorch keeps a device that was registered.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.base import ablation_noise
from cxr_faith.attribution.igos_loss import MaskLoss
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Target
from tests.pretended import DEVICE, Pretended, move
from tests.random_model import random_gemma
from tests.runs import cheap_options

PROTOCOL = Protocol(max_new_tokens=2)


def loops(sae: str) -> dict[str, list[dict[str, Any]]]:
    """Options with which a method's loop runs twice as often, or more; the name's first word is the method."""
    return {
        "integrated_gradients": [{"steps": steps, "micro_batch": 1} for steps in (2, 4)],
        "smooth_grad": [{"copies": copies, "micro_batch": 1} for copies in (2, 4)],
        "sae": [{"path": sae, "steps": steps, "micro_batch": 1} for steps in (2, 4)],
        "igos_pp": [{"iterations": count, "path_steps": count} for count in (1, 2)],
        "igos_pp line_search": [{"optimizer": "line_search", "iterations": count} for count in (1, 3)],
        "rise": [{"masks": masks} for masks in (4, 12)],
        "occlusion": [{"window": window} for window in (1, 5)],
        "greedy": [{"cells": cells, "substrate": "zero"} for cells in (1, 3)],
        "integrated_gradients ablated": [{"steps": n, "micro_batch": 1, "ablated": True} for n in (2, 4)],
        "igos_pp ablated": [{"iterations": n, "path_steps": n, "ablated": True} for n in (1, 2)],
        "chefer ablated": [{"ablated": True}] * 2,
        "eagle": [{"regions": 4, "budget": budget, "substrate": "zero"} for budget in (8, 14)],
        "multi_scale": [{"tolerance": tolerance, "substrate": "zero"} for tolerance in (1e9, 0.0)],
        "cleann": [{"alpha": 1e-15, "samples": 5, "substrate": "zero"}, {"substrate": "zero"}],
    }


vlm = random_gemma()


def maps(pixels: torch.Tensor, methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each method's map; an error ends the run."""
    with torch.no_grad():
        (case,) = read_answers(vlm, pixels, "a", ["Is there a nodule?"], ["yes_no"], PROTOCOL)
    case.finding_cells = torch.eye(8).to(pixels.device)
    compute_maps(vlm, build_methods(methods), [pixels], [case], 0, only_in_format=False)
    return case.maps


def scores(pixels: torch.Tensor, spec: str, micro_batch: int = 4) -> torch.Tensor:
    """Margins of 6 pictures under a substrate."""
    plan, substrate = Plan(vlm.n_cells), Substrate.parse(spec)
    places = plan.add(0, np.random.default_rng(0).random((6, vlm.n_cells)) < 0.5)
    removed = substrate.apply(pixels[None], ["a"], 0)[0]
    fill = substrate.fill(pixels, "a", 0, vlm.grid)
    engine = Engine(vlm, micro_batch=micro_batch)
    return engine.run(pixels, removed, plan, [vlm.prompt("q")], [Target("margin")], fill)[0].s[places]


def main(sae: str) -> dict[str, Any]:
    """Differences from the CPU, and what the host waited for."""
    methods = {name: cheap_options(sae).get(name, {}) for name in METHODS if name != "file"}
    substrates = [name for name in Substrate.NAMES if name != "pair"]
    picture = torch.randn(3, *vlm.image_size, generator=torch.Generator().manual_seed(0))
    expected, expected_scores = maps(picture, methods), {spec: scores(picture, spec) for spec in substrates}
    with Pretended() as device:
        move(vlm.model)
        vlm.device = DEVICE
        vlm.decoder.forget()
        there = picture.to(DEVICE)
        computed = maps(there, methods)

        def waits(work: Any) -> dict[str, int]:
            device.waits.clear()
            work()
            return dict(device.waits)

        def loop(name: str, options: dict[str, Any]) -> dict[str, Any]:
            ablation_noise.cache_clear()
            with counted(Engine, "run") as runs, counted(MaskLoss, "values") as tries:
                waited = waits(lambda: maps(there, {name.split()[0]: options}))
            return {"waits": waited, "runs": len(runs), "tries": len(tries)}

        return {
            "maps": {name: float(np.abs(computed[name] - values).max()) for name, values in expected.items()},
            "largest": {name: float(np.abs(values).max()) for name, values in expected.items()},
            "scores": {
                spec: float((scores(there, spec) - values).abs().max()) for spec, values in expected_scores.items()
            },
            "engine": [waits(lambda size=size: scores(there, "zero", size)) for size in (1, 2, 6)],
            "loops": {name: [loop(name, options) for options in several] for name, several in loops(sae).items()},
            "padded": Engine(vlm).batches.padded,
            "mixing": mixing(there),
        }


@contextmanager
def counted(owner: type, name: str) -> Iterator[list[None]]:
    """While it is entered, one entry for each call of a class's function."""
    calls, function = list[None](), getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return function(*args, **kwargs)

    with patch.object(owner, name, counting):
        yield calls


def mixing(there: torch.Tensor) -> str:
    """What happens when tensors of host and device meet."""
    try:
        return str(there + torch.ones(there.shape))
    except RuntimeError as error:
        return str(error)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(sys.argv[1]), default=Counter))
