"""Explain and score a model's answers about single pictures, from Python."""

from cxr_faith.explainer.explainer import Explainer
from cxr_faith.explainer.explanation import Explanation, LayerShare
from cxr_faith.explainer.pictures import Picture, read_picture
from cxr_faith.explainer.scores import Scores

__all__ = ["Explainer", "Explanation", "LayerShare", "Picture", "Scores", "read_picture"]
