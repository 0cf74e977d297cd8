"""`cxr-faith explain … --clinical true`: the clinical summary of one answer, as JSON, HTML and PDF."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_faith.data.geometry import fit_mask
from cxr_faith.data.images import load_mask, read_header
from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.explainer import Explainer, Explanation, Scores
from cxr_faith.metrics.calibration import expected_calibration_error
from cxr_faith.perturb.condition import NONE
from cxr_faith.printable import json_text
from cxr_faith.records import read_records
from cxr_faith.report.charts import AnswerCurves
from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration, PictureFile
from cxr_faith.report.clinical.page import clinical_page
from cxr_faith.report.clinical.sheet import clinical_sheet, save_sheet
from cxr_faith.report.clinical.summary import clinical_summary
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.summary.load import read_provenance
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.identity import model_identity

COMPARED = ("attention", "chefer", "gradient", "rollout")
"""Methods whose maps of the same answer are compared with the one that was asked for; each needs few forwards."""


@dataclass(frozen=True)
class Known:
    """What is known besides the answer.

    Attributes:
        calibration_run: run directory of the same model; its yes/no answers show how often the model is right.
        paraphrases: other wordings of the question, which are asked too.
        masks: folder of organ masks, `<label>/<name of the picture>.png`.
        picture: the picture's file.
        cautions: what takes the meaning from the map or from words about it.
    """

    calibration_run: str | None = None
    paraphrases: Sequence[str] = ()
    masks: str | None = None
    picture: PictureFile | None = None
    cautions: Sequence[str] = ()


def write_clinical(
    explainer: Explainer, explanation: Explanation, scores: Scores | None, stem: Path, known: Known | None = None
) -> Path:
    """Write `<stem>-clinical.json`, `.html` and `.pdf`.

    Args:
        explainer: the explainer that made the explanation.
        explanation: the explanation of one answer.
        scores: its evaluation; None if it was not evaluated.
        stem: path of the files, without `-clinical` and ending.
        known: what is known besides the answer.

    Returns:
        the path of the HTML page.

    Raises:
        ValueError: the calibration run is of another model or has no yes/no answer with a reference, or there is no
            organ mask of the picture.
    """
    summary = clinical_summary(_answer(explainer, explanation, scores, known or Known()))
    curves = None
    if scores is not None and scores.k is not None and scores.status in ("ok", "degenerate", "inverted"):
        k = np.asarray(scores.k, np.float64)
        curves = AnswerCurves((k / k[-1]).tolist(), scores.deletion_scores or [], scores.insertion_scores or [])
    drawn = (explanation.picture, explanation.map, curves, explanation.geometry.crop, explanation.sides[0])
    text = json_text(summary.to_dict())
    json_path, page, sheet = (stem.with_name(f"{stem.name}-clinical.{ending}") for ending in ("json", "html", "pdf"))
    write_atomic(json_path, text + "\n")
    write_atomic(page, clinical_page(summary, *drawn))
    save_sheet(clinical_sheet(summary, *drawn), sheet)
    return page


def _answer(explainer: Explainer, explanation: Explanation, scores: Scores | None, known: Known) -> Answer:
    """The answer, the maps of other methods, and the answers to other wordings of the question."""
    vlm, meta = explainer.vlm, explanation.metadata
    asked = {"kind": meta["kind"], "image_id": meta["image_id"]}
    target = explanation.target.name
    others = {
        name: explainer.explain(explanation.picture, meta["question"], name, target, **asked).map
        for name in COMPARED
        if name != meta["method"]
    }
    worded = [explainer.explain(explanation.picture, other, "center", **asked).answer for other in known.paraphrases]
    # Counted in the weights that answered: the size in a model's name can be wrong.
    parameters = sum(weight.numel() for weight in vlm.model.parameters()) if hasattr(vlm, "model") else None
    model = vlm.identity()
    run = known.calibration_run
    return Answer(
        question=meta["question"],
        answer=explanation.answer,
        p_yes=meta["p_yes"],
        map=explanation.map,
        method=meta["method"],
        model={**model, "parameters": parameters},
        faithfulness=None if scores is None else Faithfulness.from_record(scores.to_dict()),
        verdict=None if explanation.verdict is None else explanation.verdict.sentence,
        others=others,
        masks={} if known.masks is None else organ_masks(known.masks, explanation),
        calibration=None if run is None else calibration_of(run, model["source"]),
        paraphrases=worded,
        picture=known.picture,
        sides=explanation.sides[0],
        cautions=[*known.cautions, *([PHANTOMS_ONLY] if has_bundled_weights(model["source"]) else [])],
    )


def picture_file(path: str | Path, dated: bool = False) -> PictureFile:
    """Which picture a file is.

    Args:
        path: the file.
        dated: also the date of the study, which may help to identify a patient.

    Raises:
        OSError: it cannot be read.
        ImageError: it is a damaged DICOM file.
    """
    header = read_header(path)
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    date = header.get("StudyDate") if dated else None
    return PictureFile(Path(path).name, digest, header.get("SOPInstanceUID"), date)


def organ_masks(folder: str, explanation: Explanation) -> dict[str, NDArray[np.float64]]:
    """Organ → share of each cell of the map that it covers; see `mask_pixels`."""
    geometry, grid = explanation.geometry, explanation.metadata["grid"]
    masks = mask_pixels(folder, explanation).items()
    return {label: geometry.to_cells(fit_mask(mask, geometry), grid).double().numpy() for label, mask in masks}


def mask_pixels(folder: str, explanation: Explanation) -> dict[str, NDArray[np.bool_]]:
    """Organ → mask [H, W] in pixels of the picture, from `<folder>/<label>/<name of the picture>.png`.

    Raises:
        ValueError: there is none, or one cannot be used.
    """
    name = f"{Path(explanation.metadata['image_id']).stem}.png"
    files = sorted(path / name for path in Path(folder).glob("*") if (path / name).is_file())
    if not files:
        raise ValueError(f"--masks {folder}: holds no <label>/{name}")
    return {file.parent.name: load_mask(file) for file in files}


def calibration_of(run_dir: str | Path, source: str) -> ModelCalibration:
    """Accuracy and calibration of a run's yes/no answers, and the range of the model's confidence.

    Args:
        run_dir: the run directory.
        source: folder or hub id of the model that the run must be of.

    Raises:
        ValueError: the run is of another model, or has no yes/no answer with a reference.
    """
    model = read_provenance(Path(run_dir)).get("model", {})
    if model.get("hash") != model_identity(ModelConfig(path=source, revision=model.get("revision") or None))["hash"]:
        raise ValueError(f"--calibration {run_dir}: a run of another model ({model.get('source', 'not stated')})")
    answers = read_records(run_dir, ["p_yes", "correct"])
    answers = answers[answers["condition"].eq(NONE)].drop_duplicates("sample_id")
    answers = answers[answers["p_yes"].notna() & answers["correct"].notna()]
    if answers.empty:
        raise ValueError(f"--calibration {run_dir}: no yes/no answer with a reference in its records")
    p_yes = answers["p_yes"].to_numpy(np.float64)
    correct = answers["correct"].to_numpy(bool)
    confidence = np.maximum(p_yes, 1 - p_yes)
    return ModelCalibration(
        dataset=Path(run_dir).name,
        n=len(answers),
        accuracy=float(correct.mean()),
        ece=expected_calibration_error(p_yes, (p_yes >= 0.5) == correct),
        confidence_range=(float(confidence.min()), float(confidence.max())),
    )
