"""The words of the report, one sentence each."""

GLOSSARY = {
    "effect": "Score of the intact picture minus the score with the substrate everywhere: what there is to explain.",
    "substrate": "What stands where a cell was removed, e.g. blur:0.1 is a Gaussian blur of .1 of the image side.",
    "deletion AUC": "Area under the curve of the score while the most salient cells are removed first, in units of the "
    "effect. Lower is better.",
    "insertion AUC": "The same while the most salient cells are shown first. Higher is better.",
    "srg": "Symmetric relevance gain: insertion AUC minus deletion AUC. Random orders have 0 by construction.",
    "srg logit": "srg in logits (yes/no) or nats, not divided by the effect; the headline where the effect is small or "
    "negative, as for most answers of no.",
    "drop@50": "Share of the effect that is lost once half of the cells are removed, most salient first.",
    "Δ random, Δ center": "Gap to random orders and to cells sorted by their distance to the center of the picture; "
    "positive is better than the baseline.",
    "coverage": "Share of a method's rows that are ok.",
    "n": "Samples in the means: those that are ok for every method that has a row for them.",
    "degenerate": "The effect is too small to divide by: under .5 and under 5 % of the score.",
    "inverted": "Removing the picture makes the model surer of its answer.",
    "off_format": "A yes/no question whose first token is neither with at least half of the probability.",
    "invalid": "The picture failed to load, or a score or a map was not finite.",
    "clipped points": "Share of curve points outside 0 to 1, which raw scores keep.",
    "substrate flips": "Share of compared samples whose answer flips when the whole picture is substrate.",
    "OOD score": "What is lost when half of the cells are replaced though the best map says that they matter least; "
    "0: the substrate alone does no harm, towards 1: it breaks the answer wherever it stands. An upper bound.",
    "breaks early": "1 minus twice the deletion AUC of random orders: 0 if the answer fades in step with the picture, "
    "towards 1 if a few cells anywhere break it, below 0 if a few cells anywhere are enough to keep it.",
    "pointing game, energy inside": "Share of a map's highest cells that lie on the finding; share of its positive "
    "mass there.",
    "IoU, AUPRC": "Overlap over union of the finding with the map above Otsu's threshold, or with its first tenth; "
    "average precision of the map's pixels.",
    "ECE, AUROC": "Distance of p(yes) from the share of yes in the references, over 15 bins; how often p(yes) is "
    "higher for a yes than for a no.",
    "own substrate (*)": "The method perturbs with the very substrate that it is scored under.",
}
