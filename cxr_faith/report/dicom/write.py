"""Writes the objects of one answer into a folder."""

import io
import warnings
from pathlib import Path

from pydicom import Dataset

from cxr_faith.report.dicom import objects
from cxr_faith.report.dicom.result import DicomResult
from cxr_faith.report.dicom.source import read_source
from cxr_faith.report.dicom.structured_report import structured_report
from cxr_faith.storage.atomic import write_atomic

KINDS = {
    "map": objects.parametric_map,
    "cells": objects.segmentation,
    "report": structured_report,
    "figure": objects.capture,
}
"""Object → what makes it."""
UNICODE = "ISO_IR 192"
"""Questions have letters that the film's character set may lack; names of the film are written anew."""


def write_dicom(film: str | Path, result: DicomResult, folder: Path, stem: str) -> list[Path]:
    """Write `<stem>-map.dcm`, `-cells.dcm`, `-report.dcm` and `-figure.dcm`: all, or none that is half there.

    They repeat the film's patient and study, and are as private as the film.

    Args:
        film: the DICOM file that was asked about.
        result: the answer and its map.
        folder: where to write; made if it is missing.
        stem: begin of the files' names.

    Raises:
        ValueError: the film has no header that objects could repeat.
        OSError: a file could not be written.
    """
    source = read_source(film)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names in the header, which no terminal should show
        made = {kind: make(source, result) for kind, make in KINDS.items()}
    folder.mkdir(parents=True, exist_ok=True)
    files = {kind: folder / f"{stem}-{kind}.dcm" for kind in made}
    for kind, dataset in made.items():
        dataset.SpecificCharacterSet = UNICODE
        write_atomic(files[kind], _content(dataset))
    return list(files.values())


def _content(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
