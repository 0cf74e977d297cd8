"""Writes the small files of made-up data sets in published layouts."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

HEIGHT, WIDTH = 80, 120
CHEXPERT = ("Atelectasis", "Cardiomegaly", "Edema", "No Finding", "Pleural Effusion", "Support Devices")
VINDR = ("Cardiomegaly", "Nodule/Mass", "Pleural effusion", "Other lesion", "Pneumonia", "No finding")


def pixels(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture, different for each number, uint8 ``[height, width]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    y, x = rng.uniform(0.2, 0.8, 2) * (height, width)
    return (40 + 180 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.1 * height * width))).astype(np.uint8)


def save(path: Path, seed: int, **size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, **size)).save(path)


def write_csv(path: Path, header: str, *rows: str) -> Path:
    """Write a CSV file, gzipped if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join([header, *rows]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_dicom(path: Path, seed: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = height, width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = (pixels(seed, height, width).astype(np.uint16) * 16).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)


def vqa_entry(idx: int, image: tuple[str, str, str], kind: str, question: str, answer: Any, **arguments: Any) -> dict:
    """An entry of MIMIC-Ext-MIMIC-CXR-VQA; image is (subject, study, dicom)."""
    subject, study, dicom = image
    return {
        "split": "test",
        "idx": idx,
        "subject_id": subject,
        "study_id": study,
        "image_id": dicom,
        "image_path": f"p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg",
        "question": question,
        "semantic_type": kind,
        "content_type": "presence",
        "template": "Is there ${attribute} in the ${object}?",
        "template_program": "program_1",
        "template_arguments": {
            key: {str(i): v for i, v in enumerate(arguments.get(key, ()))}
            for key in ("object", "attribute", "category", "viewpos", "gender")
        },
        "answer": answer,
    }
