"""The families that training knows, by the `model_type` of their models."""

from __future__ import annotations

from architecture import Family
from gemma3 import Gemma3
from llava import Llava
from qwen2_5_vl import Qwen2_5VL

FAMILIES: dict[str, Family] = {"gemma3": Gemma3(), "llava": Llava(), "qwen2_5_vl": Qwen2_5VL()}
