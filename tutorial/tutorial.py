# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Why did the model say that, and should you believe the map?
#
# One question about one picture: a map of what the answer depends on, the test of this map, a verdict, other methods,
# and at the end how it works inside. It runs on a CPU in about two minutes with the small model that ships. The script
# `tutorial/tutorial.py` and the notebook `tutorial/tutorial.ipynb` are the same; the notebook holds the outputs. The
# figures are also written to the folder `tutorial-figures`.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("cxr_faith") is None:  # on a machine without it, such as Colab's; takes minutes
    source = "git+https://github.com/cxr-faith/cxr_faith"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure

import cxr_faith
from cxr_faith.attribution.base import score_gradient
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.perturb.substrate import Substrate
from cxr_faith.report.bars import layer_attention_bars, region_bars, text_relevancy_bars
from cxr_faith.report.charts import mean_curves
from cxr_faith.report.clinical.evidence import evidence_of
from cxr_faith.report.grids import compare_methods, deletion_film
from cxr_faith.summary.curves import Curves
from cxr_faith.vlm.base import Target

OUT = Path(os.environ.get("TUTORIAL_OUT", "tutorial-figures"))
OUT.mkdir(parents=True, exist_ok=True)


@dataclass
class Drawn:
    """A figure's file; a notebook shows it."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def show(figure: Figure, name: str) -> Drawn:
    """Write a figure, and return what a notebook shows of it."""
    path = OUT / f"{name}.png"
    figure.savefig(path, dpi=110)
    return Drawn(path)


explainer = cxr_faith.Explainer.from_pretrained("bundled", device="cpu")
vlm = explainer.vlm
print(f"{sum(w.numel() for w in vlm.model.parameters()):,} parameters, grid {vlm.grid}, input {vlm.image_size}")

# %% [markdown]
# ## 1. A question
#
# The picture is a phantom: a drawn chest with one finding whose place is known. The small model knows phantoms only.

# %%
data = bundled_manifest().parent
table = [Sample.from_row(row) for row in pq.read_table(bundled_manifest()).to_pylist()]
sample = next(s for s in table if s.finding == "pleural effusion" and s.kind == "yes_no" and s.answer == ("yes",))
picture = load_image(sample.image_path, data)
chefer = explainer.explain(picture, sample.question, "chefer", image_id=sample.image_id)
print(f"{sample.question} {chefer.answer}, p(yes) = {chefer.metadata['p_yes']:.3f}")
print(f"margin {chefer.metadata['margin']:+.2f} logits: the score of yes minus that of no")

# %% [markdown]
# ## 2. A map
#
# The map rates each cell of the picture: how much does the answer depend on it, according to one method? The box is
# where the finding is.

# %%
show(compare_methods(picture, {"chefer": chefer.map}, f"{sample.question} {chefer.answer}", sample.boxes), "2-map")

# %% [markdown]
# It looks right. That says little: a map can point at the finding although the answer does not depend on it.

# %% [markdown]
# ## 3. Remove what the map shows
#
# The model sees the picture again while its cells are blurred away, most salient first: 0 to 100 % of them.

# %%
pixels = vlm.normalize(fit(picture, vlm.image_size)[0][None])
removed = Substrate.parse("blur:0.1").apply(pixels, [sample.image_id], explainer.seed)
seen, gone = (vlm.denormalize(values)[0].permute(1, 2, 0).numpy() for values in (pixels, removed))
scores = explainer.evaluate(chefer, substrate="blur:0.1", steps=12)
shares = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
after = dict(zip(shares, np.interp(shares, np.array(scores.k) / scores.k[-1], scores.deletion_scores), strict=True))
show(deletion_film(seen, gone, np.array(scores.order), vlm.grid, shares, after), "3-film")

# %% [markdown]
# The score is the margin of the answer. Below 0 the model says the opposite. How soon it falls is a number:

# %%
print(f"deletion {scores.deletion_auc:.2f}: the mean share of the effect that is left; low is good")
print(f"insertion {scores.insertion_auc:.2f}: the same while the cells are put back, most salient first; high is good")
print(f"srg {scores.srg:.2f}: insertion minus deletion; random orders have 0")

# %% [markdown]
# ## 4. The verdict
#
# Two simple rivals must be beaten: 20 random orders of the cells, and the prior that what matters is in the center.

# %%
print(chefer.verdict.sentence)
show(chefer.plot(boxes=sample.boxes), "4-verdict")

# %% [markdown]
# ## 5. Methods compared
#
# Each method draws a map of the same answer, and most of them look plausible. `random_map` is noise.

# %%
names = ("chefer", "attention", "rollout", "gradient", "integrated_gradients", "grad_x_input", "random_map")
explanations = explainer.compare(picture, sample.question, names, image_id=sample.image_id)
maps = {name: explanation.map for name, explanation in explanations.items()}
show(compare_methods(picture, maps, f"{sample.question} {chefer.answer}", sample.boxes), "5-methods")

# %%
results = explainer.evaluate_together(list(explanations.values()), substrate="blur:0.1", steps=12)
for name, of in sorted(results.items(), key=lambda item: -item[1].srg):
    numbers = f"srg {of.srg:+.2f}  to the center {of.gap_srg_center:+.2f}  p {of.random_p:.3f}"
    print(f"{name:20} {numbers}  {explanations[name].verdict.verdict}")
assert results["chefer"].srg == scores.srg > results["random_map"].srg

# %% [markdown]
# A map to believe has a p below .05 (better than random orders) and a positive gap to the center. Here `grad_x_input`
# is better than random orders only, and `random_map` is no better than noise.

# %%
assert explanations["grad_x_input"].verdict.verdict == "weak"
assert explanations["random_map"].verdict.verdict == "no better than noise"
curves = {
    name: Curves(n=1, x=np.array(of.k) / of.k[-1], deletion=of.deletion_scores, insertion=of.insertion_scores)
    for name, of in results.items()
    if name in ("chefer", "grad_x_input", "random_map")
}
show(mean_curves(curves, logit=True), "5-curves")

# %% [markdown]
# One answer proves little. `cxr-faith evaluate` does this for a whole data set, with intervals over patients, and its
# report starts with the verdict on each method; `make demo` is its smallest run.

# %% [markdown]
# ## 6. Inside: tokens
#
# A question becomes tokens. The picture becomes one block of image tokens among them, one for each cell of the map. A
# map is read from an attention row at the positions of these image tokens, their *span*.

# %%
prompt = vlm.prompt(sample.question)
print("before the picture:", vlm.decode(prompt.prefix_ids[: prompt.image_start]))
print(f"image tokens: positions {prompt.image_start} to {prompt.image_start + vlm.n_cells - 1}")
print("after it:", vlm.decode(prompt.suffix_ids))

# %% [markdown]
# Which layers look at the picture at all? Global layers see all tokens, local layers a window of them.

# %%
layers = [layer.share for layer in explainer.layer_attention(picture, sample.question)]
show(layer_attention_bars(layers, vlm.layer_types), "6-layers")

# %% [markdown]
# Which words count beside the picture? The answer is read at the last token. Its relevance for itself is 1 by
# definition (Chefer's product starts from the identity), so it is left out.

# %%
show(text_relevancy_bars(chefer.text_relevancy[:-1]), "6-words")

# %% [markdown]
# And where on the patient does the map lie?

# %%
evidence = evidence_of(chefer.map, {})
print(evidence.words)
thirds = {f"{third} third": share for third, share in evidence.thirds.items()}
show(region_bars({**thirds, **evidence.organs}, dict.fromkeys(thirds, 1 / 3)), "6-regions")

# %% [markdown]
# ## 7. Inside: which way is up?
#
# A picture whose map is known tells whether height and width are swapped somewhere. The circle is at the top right, so
# a map of *edge energy* must be bright there. The model's answer means nothing here.

# %%
side = 240
rows, columns = np.indices((side, side))
circle = np.full((side, side, 3), 30, np.uint8)
circle[np.hypot(rows - 60, columns - 180) < 30] = (240, 240, 240)
edges = explainer.explain(circle, "Is there a nodule?", "edges", kind="yes_no")
top, left = np.unravel_index(edges.map.argmax(), vlm.grid)
print(f"strongest cell of the circle: row {top}, column {left} of {vlm.grid}")
assert top < vlm.grid[0] / 2 and left >= vlm.grid[1] / 2
show(compare_methods(circle, {"edges": edges.map}), "7-circle")

# %% [markdown]
# ## 8. Inside: the p − 1 rule, shown by breaking it
#
# A causal model's logit at position i predicts the token at i + 1. So the token at position p is *read* at **p − 1**,
# and row p − 1 of every attention matrix explains it. Row p comes later and cannot have influenced the token. Proof:
# the gradient of the token's score with respect to row p is exactly zero in every layer.

# %%
open_question = "List the findings."
listed = explainer.explain(picture, open_question, kind="open", image_id=sample.image_id)
print("answer:", listed.tokens)
prompt = vlm.prompt(open_question)
ids = listed.target.answer_ids
two = Target("tokens", answer_ids=ids, scored=(0, 1))  # feed the first token too, so that its own row p exists
attentions = []
tokens = vlm.encode(pixels).detach().requires_grad_()
logits = vlm.trace(tokens, [prompt], [two], lambda _, probabilities: attentions.append(probabilities))
gradients = score_gradient(logits[:, 0], attentions)  # of the first answer token alone
p = prompt.length  # where the first answer token stands
at_read = max(float(g[..., p - 1, :].abs().max()) for g in gradients)
at_token = max(float(g[..., p, :].abs().max()) for g in gradients)
print(f"largest |gradient| of the first token's score: row p - 1: {at_read:.2g}, row p: {at_token:.2g}")
assert at_read > 0 and at_token == 0

# %% [markdown]
# A map from row p would still look plausible: it shows what the *next* token attends to.

# %%
image = slice(prompt.image_start, prompt.image_start + vlm.n_cells)
right, wrong = (
    sum(a[0, :, row, image].detach().mean(0) for a in attentions).reshape(vlm.grid).numpy() for row in (p - 1, p)
)
show(compare_methods(picture, {"row p - 1": right, "row p (wrong)": wrong}, open_question), "8-p-minus-1")
