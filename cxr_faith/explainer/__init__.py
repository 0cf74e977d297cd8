"""Explain and score a model's answers about single pictures, from Python."""

from cxr_faith.explainer.explainer import Explainer
from cxr_faith.explainer.explanation import Explanation, LayerShare
from cxr_faith.explainer.scores import Scores
from cxr_faith.explainer.view import Picture

__all__ = ["Explainer", "Explanation", "LayerShare", "Picture", "Scores"]
