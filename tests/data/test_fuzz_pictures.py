"""Damaged copies of every picture format, seeded: each costs its sample at most, in bounded time and memory."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxr_faith.data.manifest import write_manifest
from cxr_faith.data.sample import Sample
from tests.data.damage import damaged_copies
from tests.data.layouts import pixels
from tests.data.test_data_dicom import RAMP, lut, write_dicom

REPOSITORY = Path(__file__).parents[2]
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
COPIES = 24
DECODE_SECONDS = 3.0
MAGIC = {"jpg": 3, "png": 8, "dcm": 132}

# Uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000; gray and color; little and big endian.
DICOM = (
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "JPGExtended.dcm",
    "image_dfl.dcm",
)

# Prepares the folder's pictures, checks them, and serves them as an evaluation does.
SCRIPT = """
import json, resource, sys
from pathlib import Path
from cxr_faith.data import decoder
from cxr_faith.data.check import check_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.prepare import PrepareOptions, prepare

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
prepared = prepare("table", PrepareOptions(str(folder), str(folder / "out")), file=str(folder / "q.csv"))
checked, faults = check_manifest(folder / "m.parquet", folder, images=None)
list(faults)
data = CXRVQADataModule(str(folder / "m.parquet"), decode_seconds=seconds)
data.image_size = (32, 32)
errors = {}
for batch in data.loader():
    errors |= {item.sample.sample_id: item.error for item in batch}
decoder._this_threads_decoder().close()
usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
[own] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps([errors, prepared.questions, checked.faults, max(usage, int(own) * 1024)]))
"""


def pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """A small whole file of each format and kind, with its suffix."""
    gray, color = Image.fromarray(pixels(0)), Image.merge("RGB", [Image.fromarray(pixels(seed)) for seed in range(3)])
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(pixels(3).astype(np.uint16) * 250)
    for picture, suffix, options in (
        (gray, "jpg", {}),
        (color, "jpg", {"exif": exif, "icc_profile": bytes(3000), "progressive": True}),
        (color.convert("CMYK"), "jpg", {}),
        (gray, "png", {}),
        (color.convert("P"), "png", {"transparency": 3}),
        (color.convert("RGBA"), "png", {"exif": exif}),
        (deep, "png", {}),
        (gray.convert("1"), "png", {}),
        (gray, "png", {"save_all": True, "append_images": [gray.rotate(90)]}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, {"jpg": "JPEG", "png": "PNG"}[suffix], **options)
        yield suffix, buffer.getvalue()
    for name in DICOM:
        yield "dcm", (SHIPPED / name).read_bytes()
    header = {"PixelPaddingValue": 0, "RescaleSlope": "1.5", "RescaleIntercept": "-10", "WindowCenter": [0, 900]}
    path = write_dicom(folder / "a.dcm", RAMP, WindowWidth=[0, 2000], VOILUTSequence=[lut(RAMP[5], 0, 16)], **header)
    yield "dcm", path.read_bytes()
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    yield "dcm", path.read_bytes()
    path.unlink()


def write_damaged(folder: Path, seed: int) -> int:
    """Write damaged pictures and masks, a table of them and a manifest; returns the number of samples."""
    rng, samples = np.random.default_rng(seed), list[Sample]()
    Image.fromarray(pixels(0)).save(folder / "good.png")
    for kind, (suffix, content) in enumerate(pictures(folder)):
        kept = MAGIC[suffix]  # without its first bytes no library looks at the rest
        for number, copy in enumerate(damaged_copies(content[kept:], COPIES, rng)):
            name = f"{kind}-{number}.{suffix}"
            (folder / name).write_bytes(content[:kept] + copy)
            paths = {"image_path": name, "image_id": name}
            if suffix == "png" and number % 2:
                paths = {"image_path": "good.png", "image_id": "good", "finding_mask_path": name}
            samples.append(Sample(name, question="Is there a nodule?", finding="nodule", **paths))
    samples.append(Sample("good", question="Is there a nodule?", image_path="good.png", image_id="good"))
    write_manifest(samples, folder / "m.parquet")
    rows = [f"{sample.sample_id},{sample.image_path},{sample.question}" for sample in samples]
    (folder / "q.csv").write_text("\n".join(["sample_id,image_path,question", *rows]) + "\n")
    return len(samples)


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_pictures_cost_their_samples_only(tmp_path: Path, seed: int) -> None:
    total = write_damaged(tmp_path, seed)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(DECODE_SECONDS)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    errors, prepared, checked, peak = json.loads(done.stdout.splitlines()[-1])
    refused = {name: error for name, error in errors.items() if error is not None}
    print(seed, total, len(refused), prepared, f"{peak / 1e6:.0f} MB")
    assert len(errors) == total and checked == len(refused) and errors["good"] is None
    assert total / 4 < len(refused) < 0.95 * total and prepared >= total - len(refused)
    for name, error in refused.items():
        assert error.startswith(f"{tmp_path}/{name}: ") and error.isprintable(), error
    assert peak < 1.5e9
