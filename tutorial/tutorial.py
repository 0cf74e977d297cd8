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
# One question about one picture, from tokens to a verdict on the explanation. It runs on a CPU in about two minutes
# with the small model that ships: `python tutorial/tutorial.py`. `jupytext --to ipynb tutorial/tutorial.py` makes a
# notebook of it. The script writes its figures to the folder `tutorial-figures`.

# %%
import os
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


def show(figure: Figure, name: str) -> Figure:
    """Write a figure and return it, so that a notebook draws it too."""
    figure.savefig(OUT / f"{name}.png")
    return figure


explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
vlm = explainer.vlm
print(f"{sum(w.numel() for w in vlm.model.parameters()):,} parameters, grid {vlm.grid}, input {vlm.image_size}")

# %% [markdown]
# ## 1. A color test picture: which way is up?
#
# Three simple pictures come before any radiograph: two halves, four quadrants, a circle. The model knows phantoms only,
# so its answer means nothing here. But a map of *edge energy* must lie on the seams. The circle is at the top right. If
# its map were bright anywhere else, height and width would be swapped somewhere.

# %%
side = 240
rows, columns = np.indices((side, side))
split = np.zeros((side, side, 3), np.uint8)
split[:, : side // 2], split[:, side // 2 :] = (200, 60, 40), (40, 90, 200)
quadrant = np.zeros_like(split)
for number, color in enumerate([(200, 60, 40), (40, 160, 80), (40, 90, 200), (220, 200, 60)]):
    part = (rows // (side // 2) == number // 2) & (columns // (side // 2) == number % 2)
    quadrant[part] = color
circle = np.full_like(split, 30)
circle[np.hypot(rows - 60, columns - 180) < 30] = (240, 240, 240)

edges = {}
for name, picture in {"split": split, "quadrant": quadrant, "circle": circle}.items():
    edges[name] = explainer.explain(picture, "Is there a nodule?", "edges", kind="yes_no")
    show(edges[name].plot(), f"1-{name}")
top, left = np.unravel_index(edges["circle"].map.argmax(), vlm.grid)
print(f"strongest cell of the circle: row {top}, column {left} of {vlm.grid}")
assert top < vlm.grid[0] / 2 and left >= vlm.grid[1] / 2

# %% [markdown]
# ## 2. A phantom, and its tokens
#
# A question becomes tokens. The picture becomes one block of image tokens among them, one for each cell of the map. A
# map is read from an attention row at the positions of these image tokens, their *span*.

# %%
data = bundled_manifest().parent
table = [Sample.from_row(row) for row in pq.read_table(bundled_manifest()).to_pylist()]
sample = next(s for s in table if s.finding == "pleural effusion" and s.kind == "yes_no" and s.answer == ("yes",))
picture = load_image(sample.image_path, data)
prompt = vlm.prompt(sample.question)
print(sample.question)
print("before the picture:", vlm.decode(prompt.prefix_ids[: prompt.image_start]))
print(f"image tokens: positions {prompt.image_start} to {prompt.image_start + vlm.n_cells - 1}")
print("after it:", vlm.decode(prompt.suffix_ids))

# %%
chefer = explainer.explain(picture, sample.question, "chefer", image_id=sample.image_id)
print(f"{chefer.answer}, margin {chefer.metadata['margin']:+.2f} logits")
show(chefer.plot(), "2-chefer")

# %% [markdown]
# ## 3. The p − 1 rule, shown by breaking it
#
# A causal model's logit at position i predicts the token at i + 1. So the token at position p is *read* at **p − 1**,
# and row p − 1 of every attention matrix explains it. Row p comes later and cannot have influenced the token. Proof:
# the gradient of the token's score with respect to row p is exactly zero in every layer.

# %%
open_question = "List the findings."
listed = explainer.explain(picture, open_question, kind="open", image_id=sample.image_id)
print("answer:", listed.tokens)
prompt = vlm.prompt(open_question)
pixels = vlm.normalize(fit(picture, vlm.image_size)[0][None])
ids = listed.target.answer_ids
two = Target("tokens", answer_ids=ids, scored=(0, 1))  # feed the first token too, so that its own row p exists
attentions = []
tokens = vlm.encode(pixels).detach().requires_grad_()
scores = vlm.trace(tokens, [prompt], [two], lambda _, probabilities: attentions.append(probabilities))
gradients = score_gradient(scores[:, 0], attentions)  # of the first answer token alone
p = prompt.length  # where the first answer token stands
at_read = max(float(g[..., p - 1, :].abs().max()) for g in gradients)
at_token = max(float(g[..., p, :].abs().max()) for g in gradients)
print(f"largest |gradient| of the first token's score: row p - 1: {at_read:.3g}, row p: {at_token:.3g}")
assert at_read > 0 and at_token == 0

# %% [markdown]
# A map from row p would still look plausible: it shows what the *next* token attends to.

# %%
image = slice(prompt.image_start, prompt.image_start + vlm.n_cells)
right, wrong = (
    sum(a[0, :, row, image].detach().mean(0) for a in attentions).reshape(vlm.grid).numpy() for row in (p - 1, p)
)
show(compare_methods(picture, {"row p - 1": right, "row p (wrong)": wrong}, open_question), "3-p-minus-1")

# %% [markdown]
# ## 4. Methods: attention, Chefer, global layers against all, rollout

# %%
names = ("attention", "chefer", "chefer_global", "rollout", "gradient", "integrated_gradients", "random_map")
explanations = {name: explainer.explain(picture, sample.question, name, image_id=sample.image_id) for name in names}
maps = {name: explanation.map for name, explanation in explanations.items()}
show(compare_methods(picture, maps, f"{sample.question} {chefer.answer}", sample.boxes), "4-methods")

# %% [markdown]
# Which layers look at the picture at all? Global layers see all tokens, local layers a window of them.

# %%
shares = [float(a[0, :, p - 1, image].detach().sum(-1).mean()) for a in attentions]
show(layer_attention_bars(shares, vlm.layer_types), "4-layers")

# %% [markdown]
# Which words count beside the picture? The answer is read at the last token. Its relevance for itself is 1 by
# definition (Chefer's product starts from the identity), so it is left out. And where on the patient does the map lie?

# %%
show(text_relevancy_bars(chefer.text_relevancy[:-1]), "4-words")
evidence = evidence_of(chefer.map, {})
print(evidence.words)
thirds = {f"{third} third": share for third, share in evidence.thirds.items()}
show(region_bars({**thirds, **evidence.organs}, dict.fromkeys(thirds, 1 / 3)), "4-regions")

# %% [markdown]
# ## 5. Does the answer depend on what the map shows?
#
# Remove the cells, most salient first. Then start from a picture with every cell removed and put them back in the same
# order. A faithful map makes the score fall early and rise early; noise does neither. A map that looks right but scores
# like random orders does not show what the model used.

# %%
results = {
    name: explainer.evaluate(explanations[name], substrate="blur:0.1", steps=12, random_orders=10)
    for name in ("attention", "chefer", "random_map")
}
for name, scores in results.items():
    print(f"{name:12} {scores.status:10} srg {scores.srg:+.2f}  z {scores.random_z:+.1f}  p {scores.random_p:.2f}")
curves = {
    name: Curves(
        n=1,
        x=np.array(scores.k) / scores.k[-1],
        deletion=scores.deletion_scores,
        insertion=scores.insertion_scores,
    )
    for name, scores in results.items()
}
show(mean_curves(curves, logit=True), "5-curves")
assert results["chefer"].srg_logit > results["random_map"].srg_logit

# %% [markdown]
# What the model saw on the way: the picture with 0 to 100 % of the cells removed.

# %%
removed = Substrate.parse("blur:0.1").apply(pixels, [sample.image_id], explainer.seed)
seen, gone = (vlm.denormalize(values)[0].permute(1, 2, 0).numpy() for values in (pixels, removed))
show(deletion_film(seen, gone, np.array(results["chefer"].order), vlm.grid), "5-film")

# %% [markdown]
# ## 6. The verdict
#
# One answer proves little. `cxr-faith evaluate` does this for a whole data set, with intervals over patients; `make
# demo` is its smallest run.
