"""Does the stated error of adaptive curves cover? `python benchmarks/adaptive.py [--pictures N] [--curves FILE]`.

Makes dense curves (T = 50) of the checkpoint `own-order-0` on the bundled phantoms, five orders of each picture under
up to six questions, and replays the adaptive schedule on them for several allowed errors. The first five pictures are
not in the table: the factor in the estimate was chosen on them. With `--curves` the curves are kept in a file, and
taken from it if it exists. Making them takes about a quarter of an hour on two cores, replaying them seconds.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cxr_faith.attribution import build_methods
from cxr_faith.cases import Case, compute_maps, read_answers
from cxr_faith.data.geometry import fit
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest, open_manifest
from cxr_faith.perturb.adaptive import area_error, coarse_points, error_unit, fill_between, next_points
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.orders import center_order, map_order
from cxr_faith.perturb.schedule import keep_masks, random_orders, schedule, stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM

MODEL = Path(__file__).parents[1] / "training" / "checkpoints" / "own-order-0"
METHODS = ("attention", "gradient", "chefer")
FINDINGS = ("a nodule", "a pleural effusion", "a consolidation", "a pneumothorax")
STEPS = 50
CHOSEN_ON = 5
"""The first pictures, on which the factor in the estimate was chosen."""
ALLOWED = (0.001, 0.002, 0.005, 0.01, 0.02)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def dense_curves(pictures: int) -> tuple[Floats, Ints, Ints]:
    """Curves [orders, 2, T + 1] of the first pictures, the number of each one's picture, and the schedule, in cells."""
    vlm = Gemma3VLM.from_pretrained(MODEL, "cpu")
    k, folder = schedule(vlm.n_cells, STEPS), bundled_manifest().parent
    asked: dict[tuple[str, str], str] = {}
    for row in open_manifest(bundled_manifest()):
        asked.setdefault((row["image_id"], row["image_path"]), row["question"])
    curves, numbers = [], []
    for number, ((image_id, file), question) in enumerate(list(asked.items())[:pictures]):
        pixels = vlm.normalize(fit(load_image(file, folder), vlm.image_size)[0][None])[0]
        questions = list(dict.fromkeys([question, *(f"Is there {name}?" for name in FINDINGS), "List the findings."]))
        for pair in picture_curves(vlm, pixels, image_id, questions, k):
            curves.append(pair)
            numbers.append(number)
    return np.stack(curves), np.array(numbers), k


def picture_curves(vlm: Gemma3VLM, pixels: Tensor, image_id: str, questions: list[str], k: Ints) -> Iterator[Floats]:
    """Both curves of five orders under every question: the first question's maps, the center, and a random order."""
    cases = read_answers(vlm, pixels, image_id, questions, [None] * len(questions), Protocol())
    cases = [case for case in cases if case.target is not None and not case.off_format]
    compute_maps(vlm, build_methods({name: {} for name in METHODS}), [pixels], cases[:1], 0)
    maps = [map_order(values, 0, image_id, name) for name, values in cases[0].maps.items()]
    orders = [order for order in maps if order is not None]
    orders += [center_order(vlm.grid, 0, image_id), random_orders(vlm.n_cells, 2, stream(0, image_id, "orders"))[0]]
    yield from _scored(vlm, pixels, image_id, cases, orders, k)


def _scored(
    vlm: Gemma3VLM, pixels: Tensor, image_id: str, cases: list[Case], orders: list[Ints], k: Ints
) -> Iterator[Floats]:
    removed = Substrate.parse(DEFAULT_SUBSTRATE).apply(pixels[None], [image_id], 0)[0]
    plan, asked = Plan(vlm.n_cells), range(len(cases))
    places = [
        [np.stack([plan.add(q, keep_masks(order, k, mode)) for mode in ("deletion", "insertion")]) for q in asked]
        for order in orders
    ]
    targets = [case.target for case in cases if case.target is not None]
    scores = Engine(vlm).run(pixels, removed, plan, [case.prompt for case in cases], targets)
    for of_order in places:
        for question, at in zip(asked, of_order, strict=True):
            yield scores[question].s.numpy()[at]


def replay(pair: Floats, k: Ints, allowed: float) -> tuple[Floats, float, int]:
    """True errors [2] of the areas of an adaptive run, their stated error (shares of the unit), and the points run."""
    unit = error_unit(pair[None])
    assert unit is not None
    known, points = np.zeros(len(k), bool), coarse_points(len(k) - 1)
    while len(points):
        known[points] = True
        points = next_points(pair, known, k, allowed * unit)
    off = np.trapezoid(fill_between(pair, known, k) - pair, k / k[-1], axis=1)
    return np.abs(off) / unit, area_error(pair, known, k) / unit, int(known.sum())


def main() -> None:
    """Print a row for each allowed error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--curves", type=Path)
    options = parser.parse_args()
    if options.curves is not None and options.curves.exists():
        stored = np.load(options.curves)
        curves, picture, k = stored["curves"].astype(np.float64), stored["picture"], stored["k"]
    else:
        curves, picture, k = dense_curves(options.pictures)
        if options.curves is not None:
            np.savez_compressed(options.curves, curves=curves, picture=picture, k=k)
    shown = curves[picture >= CHOSEN_ON]
    print(f"{2 * len(shown):,} areas of {len(np.unique(picture)) - CHOSEN_ON} pictures, of {len(k)} points each")
    print("allowed  within the stated error  within the allowed one  stated / true  largest error  points run")
    for allowed in ALLOWED:
        off, stated, points = zip(*(replay(pair, k, allowed) for pair in shown), strict=True)
        true, claimed = np.stack(off).ravel(), np.repeat(stated, 2)
        refined = true > 0  # an area of all points has no error
        ratio = np.median(claimed[refined] / true[refined])
        print(
            f"{allowed:<7}  {(true <= claimed).mean():23.1%}  {(true <= allowed).mean():22.1%}  {ratio:13.1f}"
            f"  {true.max():13.4f}  {np.mean(points):10.1f}"
        )


if __name__ == "__main__":
    main()
