"""Which library a quantized checkpoint needs. Imports nothing heavy."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from cxr_faith.vlm.errors import ModelError

LIBRARIES = {
    "aqlm": ("aqlm", "aqlm"),
    "auto-round": ("auto_round", "auto-round"),
    "awq": ("gptqmodel", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "bitnet": ("accelerate", "accelerate"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "eetq": ("kernels", "kernels"),
    "fbgemm_fp8": ("fbgemm_gpu", "fbgemm-gpu"),
    "fp8": ("accelerate", "accelerate"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "higgs": ("flute", "flute-kernel"),
    "hqq": ("hqq", "hqq"),
    "mxfp4": ("kernels", "kernels"),
    "quanto": ("optimum", "optimum-quanto"),
    "quark": ("quark", "amd-quark"),
    "spqr": ("spqr_quant", "spqr_quant"),
    "torchao": ("torchao", "torchao"),
    "vptq": ("vptq", "vptq"),
}
"""Method → (module, package) of the library that reads it."""


def is_quantized(config: Mapping[str, Any]) -> bool:
    """Whether a model's config says that its weights are quantized."""
    return config.get("quantization_config") is not None or config.get("compression_config") is not None


def check_library(config: Mapping[str, Any], folder: object) -> None:
    """Refuse a quantized checkpoint that cannot be read here.

    Args:
        config: the model's config.
        folder: what the message calls the model.

    Raises:
        ModelError: its library is not installed, or the method is unknown.
    """
    if not is_quantized(config):
        return
    settings = config.get("quantization_config") or config.get("compression_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method is None and isinstance(settings, dict) and {"load_in_4bit", "load_in_8bit"} & settings.keys():
        method = "bitsandbytes"
    otherwise = "or use the model's weights in bfloat16 or float32"
    if not isinstance(method, str) or method not in LIBRARIES:
        raise ModelError(
            f"{folder} is quantized by {repr(method)[:100]}, which cannot be read here: use another, {otherwise}"
        )
    module, package = LIBRARIES[method]
    if find_spec(module) is None:
        raise ModelError(
            f"{folder} is quantized by {method}, which needs {package}: pip install {package}, {otherwise}"
        )
