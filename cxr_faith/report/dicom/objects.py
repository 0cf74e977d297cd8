"""A map on its film as a Parametric Map, its first cells as a Segmentation, the figure as a Secondary Capture."""

from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from cxr_faith.report.dicom.result import TOP_SHARE, VERSION, DicomResult, on_pixels
from cxr_faith.report.dicom.source import USUAL, orientation

MANUFACTURER = "cxr_faith"
SERIES = {"map": 9001, "cells": 9002, "report": 9003, "figure": 9004}
"""Object → its series number."""


def parametric_map(source: Dataset, result: DicomResult) -> Dataset:
    """The map at the film's size, as float values; its units are those of the method."""
    values = on_pixels(result.map.astype(np.float32), result.region, (source.Rows, source.Columns))
    code = CodedConcept(result.code[0], "DCM", result.code[1])
    low, high = float(values.min()), float(values.max())
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="importance",
        lut_explanation="importance for the answer",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=code,
    )
    window = hd.VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-6))
    made: Dataset = hd.pm.ParametricMap(
        [source],
        values[None],
        **_identity("map"),
        **_labels(result, "MAP"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
    )
    return made


def segmentation(source: Dataset, result: DicomResult) -> Dataset:
    """The most salient cells, `TOP_SHARE` of all, at the film's size."""
    algorithm = hd.AlgorithmIdentificationSequence(
        name=result.method[:64], family=codes.DCM.ArtificialIntelligence, version=VERSION
    )
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=_short(f"first {TOP_SHARE:.0%} of {result.method}", 64),
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=CodedConcept(result.code[0], "DCM", result.code[1]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=generate_uid(),
        tracking_id=_short(result.method, 64),
    )
    made: Dataset = hd.seg.Segmentation(
        [source],
        on_pixels(result.top.astype(np.uint8), result.region, (source.Rows, source.Columns))[None],
        hd.seg.SegmentationTypeValues.BINARY,
        [segment],
        **_identity("cells"),
        **_labels(result, "CELLS"),
        omit_empty_frames=False,
    )
    return made


def capture(source: Dataset, result: DicomResult) -> Dataset:
    """The figure of the answer, as a picture that every viewer shows."""
    shown: Dataset = hd.sc.SCImage.from_ref_dataset(
        source,
        np.ascontiguousarray(result.figure),
        hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=USUAL,
        series_instance_uid=generate_uid(),
        series_number=SERIES["figure"],
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    shown.PatientOrientation = list(orientation(source) or ())  # highdicom takes no oblique direction such as LA
    shown.SeriesDescription = _short(f"explanation by {result.method}, research only", 64)
    shown.ImageComments = f"{result.question} {result.answer}. {result.verdict} Research output, not for diagnosis."
    shown.BurnedInAnnotation = "YES"
    return shown


def _identity(kind: str) -> dict[str, Any]:
    """What each object says of itself and of the program that made it."""
    return {
        "series_instance_uid": generate_uid(),
        "series_number": SERIES[kind],
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "cxr-faith",
        "software_versions": VERSION,
        "device_serial_number": "none",
    }


def _labels(result: DicomResult, kind: str) -> dict[str, Any]:
    """Label and description; a map that is not to be believed says so in both."""
    return {
        "content_label": kind if result.believed else f"DOUBTED_{kind}",
        "content_description": _short(f"{'' if result.believed else 'NOT TO BE BELIEVED. '}{result.method}", 64),
        "series_description": _short(f"{result.method}{'' if result.believed else ': not to be believed'}", 64),
    }


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
