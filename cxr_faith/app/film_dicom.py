"""The DICOM objects of an answer about a dropped film, as one ZIP file to download."""

import io
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from cxr_faith.explainer import Explanation
from cxr_faith.explainer.dicom import save_dicom
from cxr_faith.storage.atomic import write_atomic
from cxr_faith.vlm.transformers_vlm import TransformersVLM


def is_dicom(content: bytes) -> bool:
    """Whether a file begins as a DICOM file does."""
    return content[128:132] == b"DICM"


def dicom_zip(content: bytes, explanations: Sequence[Explanation], vlm: TransformersVLM) -> bytes | None:
    """What `cxr-faith explain --dicom` writes for each explanation.

    They are written below the folder of temporary files, which the app keeps private, and deleted at once.

    Args:
        content: of the film's DICOM file.
        explanations: of one answer about it.
        vlm: the model.

    Returns:
        a ZIP file; None for a film whose header objects cannot repeat.
    """
    packed = io.BytesIO()
    with TemporaryDirectory() as name, ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        film = Path(name, "film.dcm")
        write_atomic(film, content)
        try:
            for one in explanations:
                for file in save_dicom(one, vlm, str(film), film.parent / "objects", "film"):
                    archive.write(file, file.name)
        except ValueError:
            return None
    return packed.getvalue()
