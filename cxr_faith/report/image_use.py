"""Image use in words and as tables."""

from cxr_faith.report.columns import slice_title
from cxr_faith.report.formats import percent, whole_percent
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.image_use import ImageUse, Share

CLASSES = (
    "An answer goes when it changes, or when more than half of its score's size is lost. Uses: it goes with a blank "
    "picture and with another patient's. Ignores: with neither. Mixed: with one of them. A map of an answer that "
    "ignores its picture explains nothing. Intervals: Wilson, over patients."
)
GROUNDED = (
    "CGR: share of the answers that change when the cells of the finding's mask are removed. UAR: share that stay when "
    "as many cells of the lungs, or of the body, away from it are removed. A grounded answer has both."
)


def use_line(panel: ImageUse, substrate: str) -> str:
    """The share of the answers that ignore the picture, and the other classes, as one line.

    Args:
        panel: the classes.
        substrate: that of CGR and UAR, where findings have masks.
    """
    whole = panel.whole
    ends = f"{whole_percent(whole.ignores.low)} to {whole_percent(whole.ignores.high)}"
    line = f"{whole_percent(whole.ignores.share)} of {whole.n} answers ignore the picture [{ends}], "
    line += f"{whole_percent(whole.uses)} use it, {whole_percent(whole.mixed)} mixed"
    first = next((one for one in panel.grounding if one.substrate == substrate), None)
    if first is not None:
        away = "" if first.uar is None else f", UAR {whole_percent(first.uar.share)}"
        line += f"; CGR {whole_percent(first.cgr.share)}{away}"
    return line


def use_tables(panel: ImageUse | None) -> list[TextTable]:
    """Classes by slice, answers on other pictures, and grounding; none where it was not measured."""
    return [_classes(panel), _changed(panel), _grounding(panel)] if panel else []


def _classes(panel: ImageUse) -> TextTable:
    rows = [
        [slice_title(one.slice), str(one.n), percent(one.uses), percent(one.mixed), *_share(one.ignores)]
        for one in panel.slices
    ]
    header = ["answers", "n", "use it", "mixed", "ignore it", "95 % interval"]
    unknown = f" Answers without a class: {panel.n_unknown}." if panel.n_unknown else ""
    opposite = f" The other picture has another reference answer for {panel.n_opposite} of {panel.n}."
    return TextTable("Do the answers use the picture?", header, rows, CLASSES + opposite + unknown)


def _changed(panel: ImageUse) -> TextTable:
    titles = {"blank": "a blank picture", "swapped": "another patient's picture", "no picture": "no picture"}
    rows = [[titles[one.picture], str(one.changes.n), *_share(one.changes)] for one in panel.changed]
    header = ["instead of the picture", "yes/no answers", "that change", "95 % interval"]
    return TextTable("How many answers change without their picture?", header, rows)


def _grounding(panel: ImageUse) -> TextTable:
    rows = [
        [
            f"{slice_title(one.slice)}, {one.substrate}",
            str(one.cgr.n),
            *_share(one.cgr),
            *(["0", "–", "–"] if one.uar is None else [str(one.uar.n), *_share(one.uar)]),
        ]
        for one in panel.grounding
    ]
    header = ["answers with a mask", "n", "CGR", "95 % interval", "n away", "UAR", "95 % interval"]
    return TextTable("Do the answers depend on the finding's cells alone?", header, rows, GROUNDED)


def _share(one: Share) -> tuple[str, str]:
    return percent(one.share), f"{percent(one.low)} to {percent(one.high)}"
