"""An answer and what was measured of its map as a Structured Report by template TID 1500."""

import math

import highdicom as hd
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from cxr_faith.report.dicom.objects import MANUFACTURER, SERIES
from cxr_faith.report.dicom.result import VERSION, DicomResult

SCHEME = "99CXRFAITH"
MEANINGS = {
    "p_yes": "Probability of yes",
    "srg": "Symmetric relevance gain",
    "random_p": "p against random orders",
    "gap_srg_center": "Gap of srg to the center",
    "effect": "Effect of the whole picture in logits",
}
"""Number → its meaning; `SCHEME` has a code of this name for each."""


def structured_report(source: Dataset, result: DicomResult) -> Dataset:
    """Question, answer, numbers, verdict and model; anyone may read it, no one has verified it."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[MANUFACTURER, VERSION]),
        name="cxr-faith",
        manufacturer_name=MANUFACTURER,
        model_name="cxr-faith",
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier="explanation"),
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(source)],
        finding_type=CodedConcept(result.code[0], "DCM", result.code[1]),
        measurements=_measurements({"p_yes": result.p_yes, **result.scores}) or None,
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CodedConcept("chest_radiograph_question", SCHEME, "Question about a chest radiograph"),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.extend(_texts(result))
    made: Dataset = hd.sr.ComprehensiveSR(
        evidence=[source],
        content=content[0],
        series_instance_uid=generate_uid(),
        series_number=SERIES["report"],
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_verified=False,
    )
    return made


def _measurements(values: dict[str, float | None]) -> list[hd.sr.Measurement]:
    return [
        hd.sr.Measurement(CodedConcept(name, SCHEME, MEANINGS[name]), value=float(value), unit=codes.UCUM.NoUnits)
        for name, value in values.items()
        if name in MEANINGS and value is not None and math.isfinite(value)
    ]


def _texts(result: DicomResult) -> list[hd.sr.TextContentItem]:
    said = {
        "question": ("Question", result.question),
        "answer": ("Answer", result.answer),
        "method": ("Method", result.method),
        "verdict": ("Verdict", result.verdict),
        "believed": ("Whether the map is to be believed", "yes" if result.believed else "no"),
        "sanity": ("Sanity check of the method", result.sanity),
        **{f"model_{name}": (f"Model: {name}", value) for name, value in result.model.items() if value},
        "statement": ("Statement", "Research output. Not a medical device, not for diagnosis or treatment."),
    }
    return [
        hd.sr.TextContentItem(CodedConcept(name, SCHEME, meaning), text, hd.sr.RelationshipTypeValues.CONTAINS)
        for name, (meaning, text) in said.items()
    ]
