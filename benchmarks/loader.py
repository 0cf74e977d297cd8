"""Pictures per second on a real radiograph: `python benchmarks/loader.py [--workers N]`, after `make install-dev`.

Reads 24 copies each of pydicom-data's radiograph (1,955 × 1,841 pixels, 15 bits) as JPEG 2000 DICOM and as JPEG.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from pydicom.data import get_testdata_file

from cxr_faith.bench.loader import loader_bench, render_rates
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import write_manifest
from cxr_faith.report.terminal import show, wide_console

COPIES = 24


def main() -> None:
    """Write the pictures and their manifest into a temporary folder, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--size", type=int, default=896)
    options = parser.parse_args()
    source = Path(str(get_testdata_file("RG1_J2KR.dcm")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(load_image(source.name, source.parent)).save(folder / "0.jpg", quality=95)
        rows = []
        for i in range(COPIES):
            for suffix, original in ((".jpg", folder / "0.jpg"), (".dcm", source)):
                path = f"copy{i}{suffix}"
                shutil.copy(original, folder / path)
                question = {"question": "Is there a nodule?", "kind": "yes_no"}
                rows.append({"sample_id": path, "image_id": path, "image_path": path} | question)
        write_manifest(rows, folder / "manifest.parquet")
        rates = loader_bench(str(folder / "manifest.parquet"), size=options.size, workers=options.workers)
        show(wide_console(), render_rates(rates, options.size, options.workers))


if __name__ == "__main__":
    main()
