"""Which explanations of chest X-ray vision-language models to believe, measured.

`Explainer` explains and scores one answer; `cxr-faith evaluate` does it for a data set, on one process or many.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_faith.explainer import Explainer, Explanation
    from cxr_faith.vlm import bundled_model

__version__ = "0.1.0"
__all__ = ["Explainer", "Explanation", "__version__", "bundled_model"]

_HOMES = {
    "Explainer": "cxr_faith.explainer",
    "Explanation": "cxr_faith.explainer",
    "bundled_model": "cxr_faith.vlm",
}


def __getattr__(name: str) -> Any:
    # Loading torch and transformers takes seconds; `cxr-faith --help` need not wait for them.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cxr_faith' has no attribute {name!r}")
