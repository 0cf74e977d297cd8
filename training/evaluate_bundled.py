"""Measure a trained model on held-out phantoms, through files and the saved folder.

    python training/evaluate_bundled.py --model cxr_faith/vlm/bundled

Prints accuracy by finding and kind, accuracy on color and shape pictures, and a short faithfulness check: does `yes`
depend on the lesion, and is the lesion's mask a better explanation than the center of the picture? About three minutes
on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from architecture import GRID, IMAGE_SIZE
from PIL import Image
from pool import cell_shares
from removal import blur_matrix
from torch import Tensor

from cxr_faith.data.geometry import fit
from cxr_faith.data.sources import phantom, phantom_shapes
from cxr_faith.vlm import Target
from cxr_faith.vlm.loading import load_vlm

SEED = 901
BATCH = 64
STEPS = 12


class Reader:
    """A saved model of any family that answers questions about pictures.

    Args:
        folder: folder with model and processor.
    """

    def __init__(self, folder: Path) -> None:
        self.vlm = load_vlm(folder, "cpu", torch.float32)  # saved in bfloat16

    def pixels(self, image: Image.Image) -> Tensor:
        """A picture as the model gets it, [1, 3, side, side]."""
        fitted, _ = fit(np.asarray(image.convert("RGB")), self.vlm.image_size)
        return self.vlm.normalize(fitted[None])

    @torch.no_grad()
    def margins(self, pixels: Tensor, question: str) -> Tensor:
        """Yes/no margins [n] of one question about n pictures [n, 3, side, side]."""
        prompt, parts = self.vlm.prompt(question), []
        for part in pixels.split(BATCH):
            parts.append(self.vlm.score(self.vlm.prefill(self.vlm.encode(part)), prompt, Target("margin")).s)
        return torch.cat(parts)

    @torch.no_grad()
    def reply(self, pixels: Tensor, question: str) -> str:
        """The generated answer."""
        prefix = self.vlm.prefill(self.vlm.encode(pixels))
        return self.vlm.answer(prefix, self.vlm.prompt(question), 24).text.strip()


def table(title: str, hits: dict[str, list[bool]]) -> None:
    """Print accuracy per key."""
    print(f"\n{title}")
    for key in sorted(hits):
        print(f"  {key:34s} {np.mean(hits[key]):.3f}  (n = {len(hits[key])})")


def accuracy(reader: Reader, root: Path, rows: list[dict]) -> None:
    """Print the accuracy on the rows of a manifest."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        pixels = reader.pixels(Image.open(root / row["image_path"]))
        reference = ", ".join(row["answer"])
        if row["kind"] == "yes_no":
            margin = float(reader.margins(pixels, row["question"]))
            right = ("yes" if margin >= 0 else "no") == reference
            hits["yes/no"].append(right)
            hits[f"yes/no {row['finding']}"].append(right)
            hits[f"yes/no reference {reference}"].append(right)
            hits["yes/no " + row["question_group"].split("/")[1]].append(right)
        else:
            topic = row["question_group"].split("/")[1]
            hits[f"{row['kind']} {topic} (exact)"].append(reader.reply(pixels, row["question"]) == reference)
    table("chest phantoms, from files", hits)


def shapes(reader: Reader, count: int) -> None:
    """Print the share of exact answers on color and shape pictures."""
    hits: dict[str, list[bool]] = defaultdict(list)
    pictures = [phantom_shapes.sample_shape(f"held-out-{i}", SEED) for i in range(count)]
    images, _ = phantom_shapes.render_shapes(pictures, (256, 288))
    for picture, image in zip(pictures, images, strict=True):
        for question in phantom_shapes.shape_questions(picture)[::2]:
            reply = reader.reply(reader.pixels(Image.fromarray(image)), question.text)
            hits[f"{picture.layout} {question.kind}"].append(reply == question.answer)
    table("color and shape pictures (exact)", hits)


def orders_of(mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cell orders, most important first: the lesion mask, the center of the picture, chance."""
    index = np.arange(GRID) - (GRID - 1) / 2
    distance = np.hypot(index[:, None], index[None, :]).ravel()
    ties = rng.permutation(GRID * GRID)
    chance = rng.permutation(GRID * GRID)
    shares = cell_shares(mask).astype(float).ravel()
    return {
        "oracle": np.lexsort((ties, -shares)),
        "center": np.lexsort((ties, distance)),
        "random": chance,
        "random reversed": chance[::-1],
    }


def faithfulness(reader: Reader, root: Path, rows: Iterable[dict]) -> None:
    """Print deletion and insertion scores (whole cells, blur) on findings that are present and answered yes."""
    rng, blur = np.random.default_rng(0), blur_matrix()
    scores: dict[str, list[float]] = defaultdict(list)
    answered_no, cell = [], IMAGE_SIZE // GRID
    counts = [round(s * GRID * GRID / STEPS) for s in range(STEPS + 1)]
    for row in rows:
        intact = reader.pixels(Image.open(root / row["image_path"]))
        mask = np.asarray(Image.open(root / row["finding_mask_path"])) > 0
        removed = blur @ intact @ blur.T
        orders = orders_of(mask, rng)
        kept = []
        for order in orders.values():
            rank = np.argsort(order)
            kept += [rank >= k for k in counts] + [rank < k for k in counts]
        kept.append(cell_shares(mask).ravel() == 0)
        keep = torch.from_numpy(np.stack(kept)).reshape(-1, GRID, GRID)
        keep = keep.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
        s = reader.margins(torch.where(keep, intact, removed), row["question"]).numpy()
        effect = s[0] - s[STEPS]
        scores["effect (logits)"].append(effect)
        scores["margin intact"].append(s[0])
        answered_no.append(bool(s[-1] < 0))
        if s[0] < 0 or abs(effect) < max(0.5, 0.05 * abs(s[0])) or effect < 0:
            scores["not ok"].append(1.0)
            continue
        curves = ((s[:-1] - s[STEPS]) / effect).reshape(len(orders), 2, STEPS + 1)
        area = np.trapezoid(curves, np.asarray(counts) / GRID**2, axis=2)
        for name, (deletion, insertion) in zip(orders, area, strict=True):
            scores[f"srg {name}"].append(insertion - deletion)
            scores[f"srg {name} | {row['finding']}"].append(insertion - deletion)
    print("\nfaithfulness, findings that are present")
    for name in sorted(scores):
        print(f"  {name:34s} {np.mean(scores[name]):.3f}  (n = {len(scores[name])})")
    print(f"  lesion cells blurred: {np.mean(answered_no):.3f} answered no  (n = {len(answered_no)})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--faithfulness", type=int, default=60, help="number of findings for the faithfulness check")
    parser.add_argument("--shapes", type=int, default=40, help="number of color and shape pictures")
    args = parser.parse_args()
    reader = Reader(args.model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = pq.read_table(phantom.write(root, args.patients, SEED)).to_pylist()
        accuracy(reader, root, rows)
        present = [r for r in rows if r["finding_mask_path"] and r["question_group"].split("/")[1] == "presence"]
        faithfulness(reader, root, present[: args.faithfulness])
        shapes(reader, args.shapes)


if __name__ == "__main__":
    main()
