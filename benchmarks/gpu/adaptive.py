"""Adaptive curves against exact ones on the bundled model: `python benchmarks/gpu/adaptive.py OUT.json [--dry]`.

Random weights bend no curve, so the adaptive schedule is measured where weights are trained.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from cxr_faith import bundled_model
from cxr_faith.bench.engine import run_engine
from cxr_faith.bench.presets import PRESETS
from cxr_faith.bench.scene import build_scene
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import ADAPTIVE
from cxr_faith.vlm import Gemma3VLM


def main() -> None:
    """Run both schedules, print and write."""
    dry = "--dry" in sys.argv
    vlm = Gemma3VLM.from_pretrained(bundled_model(), torch.device("cpu" if dry else "cuda"), "float32")
    preset = PRESETS["tiny"]
    scene = build_scene(replace(preset, steps=8, random_orders=2, ig_steps=2) if dry else preset, vlm)
    questions = range(1 if dry else len(scene.cases))
    turns = {
        name: run_engine(scene, Engine(vlm), questions, protocol)[0]
        for name, protocol in (("exact", scene.protocol), ("adaptive", replace(scene.protocol, steps=ADAPTIVE)))
    }
    result = {
        name: {
            "pictures": turn.counts["prefill"],
            "questions": turn.counts["score"] - turn.counts["padding"],
            "seconds": turn.seconds["curves"],
        }
        for name, turn in turns.items()
    }
    exact, adaptive = result["exact"], result["adaptive"]
    answer = {**result, "times_fewer": exact["questions"] / adaptive["questions"]}
    Path(sys.argv[1]).write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(answer)


if __name__ == "__main__":
    main()
