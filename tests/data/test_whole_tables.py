"""Tables of the published size, made for the test: the published numbers come out."""

from pathlib import Path

import numpy as np

from cxr_faith.data.sample import Sample
from cxr_faith.data.sources import SOURCES
from cxr_faith.data.sources.readings import BOX_COLUMNS
from cxr_faith.data.sources.vinbigdata import votes_of
from cxr_faith.data.tables import read_table
from cxr_faith.data.tally import Tally
from tests.data.layouts import write_csv
from tests.data.test_label_sources import NIH_HEADER


def counted(samples: list[Sample]) -> tuple[int, int]:
    """Number of images with a box, and of boxes."""
    boxes = {sample.image_id: sample.boxes for sample in samples if sample.boxes}
    return len(boxes), sum(map(len, boxes.values()))


def test_the_boxes_of_nih(tmp_path: Path) -> None:
    """984 boxes on 880 of the 25,596 images of the test split."""
    names = [f"{number // 4 + 1:08d}_{number % 4:03d}.png" for number in range(25_596)]
    boxed = names[:880]
    labels = {name: "Atelectasis|Mass" for name in boxed}
    rows = [f"{n},{labels.get(n, 'No Finding')},0,{int(n[:8])},58,M,PA,2682,2749,0.14,0.14" for n in names]
    write_csv(tmp_path / "Data_Entry_2017_v2020.csv", NIH_HEADER, *rows)
    second = [f"{name},Mass,9.5,8.25,10,10,,," for name in boxed[: 984 - 880]]
    first = [f"{name},Atelectasis,225.08,547.02,86.78,79.19,,," for name in boxed]
    write_csv(tmp_path / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", *first, *second)
    write_csv(tmp_path / "test_list.txt", *names)
    tally = Tally()
    samples = list(SOURCES["nih"](tmp_path, tally))
    assert counted(samples) == (880, 984) and not tally.drops
    assert len(samples) == 2 * 2 * 880 and tally.expected == len(samples)


def test_the_readings_of_vinbigdata(tmp_path: Path) -> None:
    """15,000 images, 45,000 readings."""
    rng = np.random.default_rng(0)
    rows = []
    for image in range(15_000):
        for reader in rng.choice(17, 3, replace=False):
            for _ in range(int(rng.integers(0, 3)) or 1):
                rows.append(f"{image:032x},Cardiomegaly,3,R{reader + 1},691,1375,1653,1831")
    path = write_csv(tmp_path / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", *rows)
    votes = votes_of(read_table(path, (*BOX_COLUMNS, "rad_id"), ()), path.name, Tally())["cardiomegaly"]
    assert len(votes) == 15_000 and sum(vote.readers for vote in votes.values()) == 45_000


def test_the_classes_and_boxes_of_rsna(tmp_path: Path) -> None:
    """30,227 rows, 26,684 images, 9,555 boxes on 6,012 of them."""
    present, absent = [f"p{number}" for number in range(6_012)], [f"n{number}" for number in range(26_684 - 6_012)]
    boxed = [present[number % 6_012] for number in range(9_555)]
    labels = [f"{name},264.0,152.0,213.0,379.0,1" for name in boxed] + [f"{name},,,,,0" for name in absent]
    classes = ["Normal", "No Lung Opacity / Not Normal"]
    kinds = [f"{name},Lung Opacity" for name in boxed]
    kinds += [f"{name},{classes[number % 2]}" for number, name in enumerate(absent)]
    assert len(labels) == len(kinds) == 30_227
    write_csv(tmp_path / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *labels)
    write_csv(tmp_path / "stage_2_detailed_class_info.csv", "patientId,class", *kinds)
    tally = Tally()
    samples = list(SOURCES["rsna"](tmp_path, tally, balanced=False))
    assert len({sample.image_id for sample in samples}) == len(samples) == 26_684 and not tally.drops
    # Boxes that are equal count as one only later: here all of them are there.
    assert counted(samples) == (6_012, 9_555)
