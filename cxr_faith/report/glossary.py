"""The report's terms, one sentence each, and the columns that they explain."""

import re

from cxr_faith.metrics.functional import GAPS

GLOSSARY = {
    "effect": "Score of the intact picture minus the score with the substrate everywhere: what there is to explain.",
    "substrate": "What replaces a removed cell; blur:0.1, for example, is a Gaussian blur with a σ of 0.1 of the image "
    "side.",
    "deletion AUC": "Area under the score's curve while cells are removed, most salient first, in units of the effect. "
    "Lower is better.",
    "insertion AUC": "The same while cells are shown, most salient first. Higher is better.",
    "srg": "Symmetric relevance gain: insertion AUC minus deletion AUC. Random orders have 0 by construction.",
    "srg logit": "srg in logits, not divided by the effect; it ranks the methods where the effect is small or "
    "negative, as for most answers of no.",
    "verdict": "How far the maps of a method can be believed, by the rules below the leaderboard.",
    "random_p": "Share of random orders whose srg is at least that of the map, with the map counted among them. With R "
    "orders it cannot be below 1/(R + 1).",
    "drop@50": "Share of the effect that is lost once half of the cells are removed, most salient first.",
    "Δ random, Δ center": "Gap to random orders, and to ranking cells by their distance to the center of the picture; "
    "positive is better than the baseline.",
    "coverage": "Share of a method's rows that have normalized scores: ok or flat.",
    "flat": "All cells of the map are equal: it says nothing, and counts with the scores of random orders, so srg 0.",
    "weighted mean": "Scores in units of the effect are averaged with the effect as weight, so that an answer that "
    "hardly moves does not carry a mean.",
    "n": "Samples in the means: those that are ok for every method that has a row for them.",
    "degenerate": "The effect is too small to divide by: under 0.5, or under 5 % of the score.",
    "inverted": "Removing the picture makes the model surer of its answer.",
    "off_format": "The question asks for yes or no, and the model gives the two together less than half of the "
    "probability of its first token.",
    "invalid": "The picture failed to load, or a score or a map was not finite.",
    "OOD score": "What is lost when the half of the cells that the best map ranks lowest is replaced. Near 0 the "
    "substrate does no harm by itself, near 1 it breaks the answer wherever it is put. An upper bound.",
    "breaks early": "1 minus twice the deletion AUC of random orders. Near 0 the answer fades in step with the "
    "picture, near 1 losing a few cells anywhere breaks it, below 0 a few cells anywhere are enough to keep it.",
    "pointing game, energy inside": "Share of a map's highest cells that lie on the finding; share of its positive "
    "mass there.",
    "IoU, AUPRC": "Intersection over union of the finding with the map above Otsu's threshold, or with its top tenth; "
    "average precision of the map's pixels.",
    "box IoU, precision, recall, F1 (q90)": "The highest tenth of the cells falls into connected groups. The boxes "
    "around the largest ones, as many as the finding has boxes, are compared with the boxes of the finding, by pixels.",
    "reader": "One radiologist's boxes, scored as a map against those of the other readers who marked the finding, "
    "mean over the readers. It is about the best that a map can reach. n counts samples that two or more readers "
    "marked.",
    "ECE, AUROC": "Distance of p(yes) from the share of yes in the references, over 15 bins; how often p(yes) is "
    "higher for a yes than for a no.",
    "own substrate (*)": "The method perturbs with the same substrate that it is scored under.",
}

WORDS = {
    "verdict": "verdict",
    "n": "n",
    "coverage": "coverage",
    "flat": "flat",
    "deletion_auc": "deletion AUC",
    "insertion_auc": "insertion AUC",
    "srg": "srg",
    "drop_50": "drop@50",
    "srg_logit": "srg logit",
    "srg_logit_scored": "srg logit",
    "random_p": "random_p",
    **dict.fromkeys(GAPS, "Δ random, Δ center"),
}
"""Column → its term in `GLOSSARY`."""


def anchor(word: str) -> str:
    """The id of a term on the page."""
    return "term-" + re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")
