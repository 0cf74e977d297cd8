"""Words by which answers are read: spellings of one item, closed groups of options, and words that deny."""

from collections.abc import Mapping

GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sex": {"m": ("male", "man", "boy"), "f": ("female", "woman", "girl")},
    "view": {
        "ap": ("anteroposterior", "antero posterior"),
        "pa": ("posteroanterior", "postero anterior"),
        "lateral": (),
    },
    "side": {"left": (), "right": ()},
}
"""Options that exclude each other: group → item → its other spellings. Both sides are `both` or `bilateral`."""

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "atelectasis": ("atelectatic change",),
    "calcification": (),
    "calcified nodule": (),
    "cardiomegaly": ("enlarged heart", "enlarged cardiac silhouette", "enlargement of the cardiac silhouette"),
    "consolidation": (),
    "copd": ("copd emphysema",),
    "edema": ("pulmonary edema", "oedema", "pulmonary oedema"),
    "emphysema": (),
    "enlarged cardiomediastinum": ("widened mediastinum",),
    "fibrosis": ("pulmonary fibrosis",),
    "fracture": ("rib fracture",),
    "granuloma": (),
    "hernia": ("hiatal hernia",),
    "infiltration": ("infiltrate",),
    "lung lesion": ("pulmonary lesion",),
    "lung opacity": ("opacity", "pulmonary opacity"),
    "mass": ("lung mass", "pulmonary mass"),
    "nodule": ("lung nodule", "pulmonary nodule"),
    "pleural effusion": ("effusion",),
    "pleural thickening": (),
    "pneumonia": (),
    "pneumothorax": (),
    "scoliosis": (),
    "vascular congestion": ("pulmonary vascular congestion",),
    "cardiac pacer and wires": ("pacemaker", "pacer"),
    "central venous catheter": ("central line", "central venous line", "cvc"),
    "chest tube": (),
    "endotracheal tube": ("et tube", "ett"),
    "enteric tube": ("nasogastric tube", "ng tube"),
    "picc": ("picc line", "peripherally inserted central catheter"),
    "swan ganz catheter": ("swan ganz", "pulmonary artery catheter"),
    "tracheostomy tube": (),
}
"""Findings and devices → their other spellings."""

ANATOMY: Mapping[str, tuple[str, ...]] = {
    **{f"{side} {part}": () for side in ("left", "right") for part in ("lung", "upper lung zone", "mid lung zone")},
    **{f"{side} {part}": () for side in ("left", "right") for part in ("lower lung zone", "apical zone", "clavicle")},
    **{f"{side} {part}": () for side in ("left", "right") for part in ("hilar structures", "costophrenic angle")},
    **{f"{side} hemidiaphragm": (f"{side} diaphragm",) for side in ("left", "right")},
    "abdomen": (),
    "aortic arch": (),
    "cardiac silhouette": ("heart",),
    "carina": (),
    "mediastinum": (),
    "spine": (),
    "trachea": (),
    "upper mediastinum": (),
}
"""Places → their other spellings."""

NOTHING = (
    *("", "no", "none", "none of them", "none of these", "none of the above", "neither", "neither of them", "nothing"),
    *("no finding", "no acute finding", "no significant finding", "no abnormal finding", "no abnormality"),
    *("no acute abnormality", "no significant abnormality", "no acute cardiopulmonary process", "no disease"),
    *("normal", "unremarkable", "clear", "healthy", "normal study", "normal chest x ray", "normal chest"),
)
"""Answers that name nothing, which an empty reference asks for."""

NOT_AN_ANSWER = (
    r"\b(?:can ?not|cant|unable to|not able to|impossible to|not possible to|difficult to) (?:be )?"
    r"(?:determine|tell|say|see|answer|assess|provide|identify|evaluate|give|interpret|view)\w*"
    r"|\b(?:as an ai|i am sorry|im sorry|i apologi[sz]e|i do not know|i dont know|unclear|uncertain|indeterminate)\b"
)
"""Answers that decline: a regular expression on lower-case words without apostrophes."""


def spellings(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Every spelling of a table → its item."""
    return {spelled: item for item, others in table.items() for spelled in (item, *others)}


SYNONYMS = {
    spelled: item for table in (*GROUPS.values(), FINDINGS, ANATOMY) for spelled, item in spellings(table).items()
}
"""Every spelling of every table → its item."""
