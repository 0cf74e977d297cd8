"""Draw the picture of the README: `python docs/picture.py` writes docs/methods.png."""

from pathlib import Path

import pyarrow.parquet as pq

import cxr_faith
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.report.grids import compare_methods

METHODS = ("chefer", "integrated_gradients", "attention", "rollout", "edges", "center", "random_map")


def main() -> None:
    """Explain one answer about a bundled phantom with several methods, and write their srg below each map."""
    rows = pq.read_table(bundled_manifest()).to_pylist()
    samples = [Sample.from_row(row) for row in rows]
    sample = next(s for s in samples if s.finding == "pleural effusion" and s.kind == "yes_no" and s.answer == ("yes",))
    picture = load_image(sample.image_path, bundled_manifest().parent)
    explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
    maps, notes, answer = {}, {}, ""
    for method in METHODS:
        explanation = explainer.explain(picture, sample.question, method, image_id=sample.image_id)
        scores = explainer.evaluate(explanation, steps=12, random_orders=8)
        maps[method], notes[method], answer = explanation.map, f"srg {scores.srg:+.2f}", explanation.answer
    figure = compare_methods(picture, maps, f"{sample.question} {answer}", sample.boxes, notes=notes)
    figure.savefig(Path(__file__).with_name("methods.png"), dpi=90)


if __name__ == "__main__":
    main()
