"""Which column of a table is which column of the manifest: by its own name, by the user's word, or by a usual name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cxr_faith.data.sample import MANIFEST_SCHEMA

OPTIONS = "options"
KNOWN = tuple(name for name in MANIFEST_SCHEMA.names if name not in ("readers", "images", "orientation"))

# Usual names, in lower case and without blanks, dashes and underscores; the more telling one first.
_USUAL = {
    "image_path": (
        *("imagepath", "imagefile", "imagefilepath", "filepath", "filename", "image", "imagename", "imgname"),
        *("imgpath", "img", "picture", "path", "file", "dicomid", "imageid", "imageindex"),
    ),
    "question": ("question", "questiontext", "query", "prompt"),
    "answer": ("answer", "correctanswer", "answertext", "groundtruth", "gtanswer", "reference", "label"),
    OPTIONS: ("options", "choices", "answerchoices"),
    "image_id": ("imageid", "dicomid", "imageindex"),
    "patient_id": ("patientid", "subjectid", "patient", "subject"),
    "study_id": ("studyid", "studyinstanceuid", "study"),
    "split": ("split",),
    "finding": ("finding",),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage"),
    "view": ("view", "viewposition", "imageviewposition", "viewpos"),
}


def columns_by_name(
    present: Iterable[str], given: Mapping[str, str], wanted: Iterable[str] | None = None
) -> dict[str, str]:
    """The table's column of each of the manifest's columns that it has.

    Args:
        present: the table's columns.
        given: what the user says; it goes first.
        wanted: the manifest's columns to look for; default: all that tables can name.
    """
    names = list(present)
    usual: dict[str, str] = {}
    for name in names:
        usual.setdefault(re.sub(r"[\W_]", "", name).casefold(), name)
    taken = dict(given)
    for column in KNOWN if wanted is None else wanted:
        own = column if column in names else next((usual[u] for u in _USUAL.get(column, ()) if u in usual), None)
        if own is not None:
            taken.setdefault(column, own)
    return taken
