"""The sizes of the benchmark: how long the schedules are, and the shapes of its models."""

from dataclasses import dataclass
from typing import Any

METHODS = ("attention", "rollout", "chefer", "gradient", "grad_x_input", "integrated_gradients")
QUESTIONS = ("Is there a nodule?", "Is there a pleural effusion?", "Is there a pneumothorax?")
VOCABULARY = 262_208
SAMPLED_IG_STEPS = (2, 6)
"""Where the work is sampled: two lengths of the path of integrated gradients, to measure the time of one more step."""


@dataclass(frozen=True)
class Preset:
    """One size of the benchmark.

    Attributes:
        shape: `bundled`, or a key of `SHAPES`: random weights of that shape.
        exact: run every forward of the schedule; else time a few of each kind and multiply by the exact counts.
        steps: T of the curves.
        random_orders: R of the random baseline.
        ig_steps: points of the path of integrated gradients.
        naive_batch: pictures in one forward of the usual recipe, which keeps the logits of all positions.
        batches: batch sizes of which the floor takes the best.
        sample: pictures of a sampled turn; on a GPU a whole micro-batch.
        repeats: number of turns that each contestant gets.
    """

    shape: str
    exact: bool
    steps: int = 50
    random_orders: int = 20
    ig_steps: int = 32
    naive_batch: int = 51
    batches: tuple[int, ...] = (4, 8, 16, 32, 64)
    sample: int = 8
    repeats: int = 3


PRESETS = {
    "tiny": Preset("bundled", exact=True),
    "small": Preset("small", exact=False, naive_batch=2, batches=(1, 4, 8)),
    "medgemma-4b": Preset("medgemma-4b", exact=False, naive_batch=8, batches=(8, 16, 32, 64), sample=64),
}

FAMILIES = "families"
"""The preset that measures a model of each family, see `cxr_faith.bench.families`."""

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "text": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 1024},
        "vision": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
        | {"image_size": 448, "patch_size": 28},
    },
    "medgemma-4b": {
        "text": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 1024},
        "vision": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
        | {"image_size": 896, "patch_size": 14},
    },
}
"""Shapes with random weights; 256 image tokens and the vocabulary of Gemma 3."""
