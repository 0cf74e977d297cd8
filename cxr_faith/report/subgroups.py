"""The panel of subgroups as tables: who the patients are, and how far the groups are apart."""

from cxr_faith.metrics.statistics import FEWEST_CLUSTERS
from cxr_faith.printable import printable
from cxr_faith.report.columns import slice_title
from cxr_faith.report.formats import number, p_value
from cxr_faith.report.tables import TextTable
from cxr_faith.summary.subgroups import ACCURACY, Subgroups


def subgroup_tables(panel: Subgroups | None) -> list[TextTable]:
    """Patients of each group, and the differences between groups; none for a run without groups."""
    return [_groups(panel), _differences(panel)] if panel else []


def _groups(panel: Subgroups) -> TextTable:
    rows = [[slice_title(one.name), str(one.n_samples), str(one.n_patients)] for one in panel.groups]
    note = f"Groups of fewer than {FEWEST_CLUSTERS} patients have no numbers."
    return TextTable("Who are the patients?", ["group", "samples", "patients"], rows, note)


def _differences(panel: Subgroups) -> TextTable:
    rows = [
        [
            f"{slice_title(one.a)} − {slice_title(one.b)}",
            "accuracy" if one.of == ACCURACY else f"srg of {printable(one.of)}",
            f"{one.patients_a}, {one.patients_b}",
            number(one.mean, signed=True),
            "–" if one.t_low is None else f"{number(one.t_low, signed=True)} to {number(one.t_high, signed=True)}",
            p_value(one.p_holm),
        ]
        for one in panel.differences
    ]
    header = ["groups", "difference in", "patients", "mean", "95 % interval", "p"]
    note = "Intervals and p by bootstrap-t over patients; p after Holm's correction over all rows of its kind."
    return TextTable("Do answers and maps depend on sex, age or view?", header, rows, note)
