"""The library's front door: explain and evaluate answers about single pictures."""

from cxr_faith.explainer.explainer import Explainer
from cxr_faith.explainer.explanation import Explanation, LayerShare, Picture

__all__ = ["Explainer", "Explanation", "LayerShare", "Picture"]
