"""`cxr-faith explain … --dicom DIR`: the answer and its map as DICOM objects of the film's study."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_faith.explainer.drawing import answer_panel, png
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.report.dicom.result import DicomResult
from cxr_faith.report.dicom.source import read_source
from cxr_faith.report.formats import without_folder
from cxr_faith.summary.verdict import BELIEVE
from cxr_faith.vlm.transformers_vlm import TransformersVLM

_MODEL = ("source", "revision", "weights", "dtype")
_NUMBERS = ("srg", "random_p", "gap_srg_center", "effect")


def check_dicom(film: str) -> None:
    """Stop before a model is loaded.

    Raises:
        ValueError: the extra is not installed, or the picture is no film that objects could belong to.
    """
    if find_spec("highdicom") is None:
        raise ValueError("--dicom needs highdicom: pip install 'cxr-faith[dicom-out]'")
    read_source(film)


def save_dicom(explanation: Explanation, vlm: TransformersVLM, film: str, folder: Path, stem: str) -> list[Path]:
    """Write the objects of an explanation that was evaluated; returns their paths.

    Raises:
        ValueError: the picture is not the film pixel by pixel, or as `write_dicom` does.
        OSError: a file could not be written.
    """
    from cxr_faith.report.dicom.write import write_dicom  # needs the extra

    source = read_source(film)
    if explanation.picture.shape[:2] != (source.Rows, source.Columns):
        raise ValueError(f"{film}: shown at another size than its header states, so cells would miss their pixels")
    return write_dicom(film, _result(explanation, vlm), folder, f"{stem}-{explanation.method}")


def _result(explanation: Explanation, vlm: TransformersVLM) -> DicomResult:
    meta, scores, verdict = explanation.metadata, explanation.scores, explanation.verdict
    frame = explanation.to_frame()
    numbers = {} if scores is None else {name: getattr(scores, name) for name in _NUMBERS}
    identity = vlm.identity()
    model = {name: without_folder(str(identity[name])) for name in _MODEL if identity.get(name)}
    return DicomResult(
        question=str(meta["question"]),
        answer=explanation.answer,
        p_yes=meta["p_yes"],
        method=explanation.method,
        map=explanation.map,
        order=frame["rank"].to_numpy().argsort(),
        region=explanation.geometry.crop,
        scores=numbers,
        verdict="Not evaluated." if verdict is None else verdict.sentence,
        believed=verdict is not None and verdict.verdict == BELIEVE,
        sanity="not run",
        model=model,
        figure=np.asarray(Image.open(io.BytesIO(png(answer_panel([explanation])))).convert("RGB")),
    )
