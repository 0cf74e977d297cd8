"""`cxr-faith explain … --dicom DIR`: the answer and its map as DICOM objects of the film's study."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
from cxr_faith.explainer.drawing import answer_panel, pixels_of
from cxr_faith.explainer.explanation import Explanation
from cxr_faith.report.dicom.result import NUMBERS, DicomResult
from cxr_faith.report.dicom.source import read_source
from cxr_faith.report.formats import without_folder
from cxr_faith.summary.verdict import BELIEVE
from cxr_faith.vlm.bundled_weights import has_bundled_weights
from cxr_faith.vlm.transformers_vlm import TransformersVLM

_MODEL = ("source", "revision", "weights", "dtype")


def check_dicom(film: str) -> None:
    """Stop before a model is loaded.

    Raises:
        ValueError: the extra is not installed, or the picture is no film that objects could belong to.
    """
    require_highdicom("--dicom")
    read_source(film)


def require_highdicom(wanted: str) -> None:
    """Raise a ValueError that names what was wanted if the extra is not installed."""
    if find_spec("highdicom") is None:
        raise ValueError(f"{wanted} needs highdicom: pip install 'cxr-faith[dicom-out]'")


def check_size(film: str | Path, picture: NDArray[Any]) -> None:
    """Raise a ValueError for a film whose pixels are not those of the picture, [H, W, 3]."""
    source = read_source(film)
    if picture.shape[:2] != (source.Rows, source.Columns):
        raise ValueError(f"{film}: shown at another size than its header states, so cells would miss their pixels")


def save_dicom(explanation: Explanation, vlm: TransformersVLM, film: str, folder: Path, stem: str) -> list[Path]:
    """Write the objects of an explanation that was evaluated; returns their paths.

    Raises:
        ValueError: the picture is not the film pixel by pixel, or as `write_dicom` does.
        OSError: a file could not be written.
    """
    from cxr_faith.report.dicom.write import write_dicom  # needs the extra

    check_size(film, explanation.picture)
    return write_dicom(film, _result(explanation, vlm), folder, f"{stem}-{explanation.method}")


def _result(explanation: Explanation, vlm: TransformersVLM) -> DicomResult:
    meta, scores, verdict = explanation.metadata, explanation.scores, explanation.verdict
    frame = explanation.to_frame()
    numbers = {} if scores is None else {name: getattr(scores, name) for name in NUMBERS}
    identity = vlm.identity()
    model = {name: without_folder(str(identity[name])) for name in _MODEL if identity.get(name)}
    said = "Not evaluated." if verdict is None else verdict.sentence
    knows_films = not has_bundled_weights(str(identity.get("source", "")))
    return DicomResult(
        question=str(meta["question"]),
        answer=explanation.answer,
        p_yes=meta["p_yes"],
        method=explanation.method,
        map=explanation.map,
        order=frame["rank"].to_numpy().argsort(),
        region=explanation.geometry.crop,
        scores=numbers,
        verdict=said if knows_films else f"{PHANTOMS_ONLY} {said}",
        believed=knows_films and verdict is not None and verdict.verdict == BELIEVE,
        sanity="not run",
        model=model,
        figure=pixels_of(answer_panel([explanation])),
    )
