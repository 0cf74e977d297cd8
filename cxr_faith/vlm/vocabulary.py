"""Words by which answers are read: spellings of one item, closed groups of options, and words that deny."""

from collections.abc import Mapping

GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sex": {"m": ("male", "man", "boy"), "f": ("female", "woman", "girl")},
    "view": {
        "ap": ("anteroposterior", "antero posterior", "anterior posterior"),
        "pa": ("posteroanterior", "postero anterior", "posterior anterior"),
        "lateral": (),
    },
    "side": {"left": (), "right": ()},
    "severity": {"mild": ("minimal", "slight"), "moderate": (), "severe": ()},
}
"""Options that exclude each other: group → item → its other spellings. Both sides are `both` or `bilateral`."""

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "aspiration": (),
    "atelectasis": ("atelectatic change",),
    "bronchiectasis": (),
    "calcification": (),
    "calcified nodule": (),
    "cardiomegaly": (
        *("enlarged heart", "heart is enlarged", "enlarged cardiac silhouette", "cardiac silhouette is enlarged"),
        "enlargement of the cardiac silhouette",
    ),
    "clavicle fracture": (),
    "consolidation": (),
    "copd": ("copd emphysema",),
    "costophrenic angle blunting": ("blunting of the costophrenic angle", "blunted costophrenic angle"),
    "edema": ("pulmonary edema", "oedema", "pulmonary oedema", "pulmonary edema hazy opacity"),
    "emphysema": (),
    "enlarged cardiomediastinum": ("widened mediastinum", "mediastinal widening"),
    "fibrosis": ("pulmonary fibrosis",),
    "fracture": ("rib fracture",),
    "granuloma": (),
    "hernia": ("hiatal hernia",),
    "hydropneumothorax": (),
    "hyperaeration": ("hyperinflation", "hyperexpansion"),
    "infiltration": ("infiltrate",),
    "interstitial lung disease": ("ild",),
    "low lung volume": (),
    "lung cancer": (),
    "lung lesion": ("pulmonary lesion",),
    "lung opacity": ("opacity", "pulmonary opacity", "opacification"),
    "mass": ("lung mass", "pulmonary mass"),
    "nodule": ("lung nodule", "pulmonary nodule"),
    "pericardial effusion": (),
    "pleural effusion": ("effusion",),
    "pleural thickening": (),
    "pneumomediastinum": (),
    "pneumonia": (),
    "pneumothorax": (),
    "scoliosis": (),
    "spinal fracture": ("vertebral fracture", "compression fracture"),
    "subcutaneous air": ("subcutaneous emphysema",),
    "tortuous aorta": (),
    "vascular congestion": ("pulmonary vascular congestion",),
    "cardiac pacer and wires": ("pacemaker",),
    "central venous catheter": ("central line", "central venous line", "cvc"),
    "chest port": ("port a cath",),
    "chest tube": (),
    "endotracheal tube": ("et tube", "ett"),
    "enteric tube": ("nasogastric tube", "ng tube"),
    "ij line": ("internal jugular line",),
    "picc": ("picc line", "peripherally inserted central catheter"),
    "prosthetic valve": (),
    "subclavian line": (),
    "swan ganz catheter": ("swan ganz", "pulmonary artery catheter"),
    "tracheostomy tube": (),
}
"""Findings and devices → their other spellings."""


def _sided(part: str, *others: str) -> dict[str, tuple[str, ...]]:
    """A part of the left and of the right side."""
    return {f"{side} {part}": tuple(f"{side} {other}" for other in others) for side in ("left", "right")}


ANATOMY: Mapping[str, tuple[str, ...]] = {
    **_sided("lung"),
    **_sided("upper lung zone", "upper lobe"),
    **_sided("mid lung zone", "middle lung zone", "middle lobe"),
    **_sided("lower lung zone", "lower lobe", "lung base"),
    **_sided("apical zone", "apex", "lung apex"),
    **_sided("clavicle"),
    **_sided("hilar structures", "hilum"),
    **_sided("costophrenic angle"),
    **_sided("hemidiaphragm", "diaphragm"),
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
    r"\b(?:can ?not|cant|could not|unable to|not able to|impossible to|not possible to|difficult to|no way to) (?:be )?"
    r"(?:determine|tell|say|see|answer|assess|provide|identify|evaluate|give|interpret|view|exclude|rule|know)\w*"
    r"|\b(?:as an ai|i am sorry|im sorry|i apologi[sz]e|i do not know|i dont know|unclear|uncertain|indeterminate)\b"
    r"|\b(?:not (?:sure|certain|clear) (?:if|whether|from)|im not sure|insufficient information"
    r"|not enough information)\b|^\W*n a\W*$"
)
"""Answers that decline: a regular expression on lower-case words without apostrophes."""


def spellings(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Every spelling of a table → its item."""
    return {spelled: item for item, others in table.items() for spelled in (item, *others)}


SYNONYMS = {
    spelled: item for table in (*GROUPS.values(), FINDINGS, ANATOMY) for spelled, item in spellings(table).items()
}
"""Every spelling of every table → its item."""

PAIRED_PARTS = sorted(
    (name.removeprefix("left ") for name in spellings(ANATOMY) if name.startswith("left ")), key=len, reverse=True
)
"""Parts that are on both sides, in every spelling, longest first."""
