"""What a header says of the patient's sides."""

import pytest

from cxr_faith.data.orientation import orientation_of, sides_of


@pytest.mark.parametrize(
    ("header", "orientation", "sides"),
    [
        ({}, None, ("R", "L")),
        ({"PatientOrientation": "['L', 'F']"}, "usual", ("R", "L")),
        ({"PatientOrientation": "L\\F"}, "usual", ("R", "L")),
        ({"PatientOrientation": "['LA', 'F']", "ViewPosition": "PA"}, "usual", ("R", "L")),
        ({"PatientOrientation": "['R', 'F']"}, "mirrored", ("L", "R")),
        ({"PatientOrientation": "['A', 'F']"}, "other", ("", "")),
        ({"PatientOrientation": "['F', 'L']"}, "other", ("", "")),
        ({"PatientOrientation": "['L', 'F']", "ViewPosition": "LL"}, "other", ("", "")),
    ],
)
def test_sides_are_those_of_the_header(header: dict[str, str], orientation: str | None, sides: tuple[str, str]) -> None:
    assert orientation_of(header) == orientation and sides_of(orientation) == sides


def test_a_lateral_view_has_no_sides() -> None:
    assert sides_of(None, "LATERAL") == ("", "") and sides_of("usual", "PA") == ("R", "L")
