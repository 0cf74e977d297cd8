"""Which explanations of chest X-ray vision-language models to believe, measured.

Explain one answer and score the explanation::

    import cxr_faith

    explainer = cxr_faith.Explainer.from_pretrained("bundled")
    explanation = explainer.explain("chest.png", "Is there a nodule?", method="chefer")
    scores = explainer.evaluate(explanation)
    explanation.save("chefer.png")
    print(explanation, scores.deletion_auc, scores.gap_srg_random)

`METHODS` holds the attribution methods by name, and `adapters` connects Captum, Quantus and `datasets`.
`cxr-faith evaluate` does all this for a data set, in one process or many; `load_run` opens its run directory, and
`compare` sets several side by side.
"""

TYPE_CHECKING = False  # a type checker takes this name as true; importing `typing` takes time
if TYPE_CHECKING:
    from cxr_faith import adapters
    from cxr_faith.attribution import METHODS
    from cxr_faith.explainer import Explainer, Explanation, Scores, read_picture
    from cxr_faith.summary.compare import compare
    from cxr_faith.summary.load import load_run
    from cxr_faith.vlm import bundled_model

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "Explainer",
    "Explanation",
    "Scores",
    "__version__",
    "adapters",
    "bundled_model",
    "compare",
    "load_run",
    "read_picture",
]

_HOMES = {
    "METHODS": "cxr_faith.attribution",
    "Explainer": "cxr_faith.explainer",
    "Explanation": "cxr_faith.explainer",
    "Scores": "cxr_faith.explainer",
    "bundled_model": "cxr_faith.vlm",
    "compare": "cxr_faith.summary.compare",
    "load_run": "cxr_faith.summary.load",
    "read_picture": "cxr_faith.explainer",
}


def __getattr__(name: str) -> object:
    # Loading torch and transformers takes seconds, so each name is loaded on its first use.
    import importlib

    if name == "adapters":
        return importlib.import_module("cxr_faith.adapters")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cxr_faith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
