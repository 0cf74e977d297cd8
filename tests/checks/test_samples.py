"""The samples that checks look at."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from cxr_faith.attribution import build_methods
from cxr_faith.checks import samples
from cxr_faith.checks import sanity as sanity_checks
from cxr_faith.checks.model_checks import model_checks
from cxr_faith.checks.sanity import sanity
from cxr_faith.data.items import SampleItem
from cxr_faith.data.manifest import bundled_manifest, write_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Sample, ShownImage
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.micro_batch import MicroBatch
from tests.analytic import blind
from tests.random_model import random_model, random_processor


def test_a_model_that_answers_nothing_is_not_asked_about_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read_answers(vlm, pixels, image_id, questions, *rest, **more):  # type: ignore[no-untyped-def]
        asked.append(image_id)
        return [SimpleNamespace(target=None, off_format=True, image_id=image_id)]

    def item(index: int) -> SampleItem:
        sample = Sample(f"s{index}", image_id=str(index), question="Is it tilted?", kind="yes_no")
        return SampleItem(sample, torch.zeros(3, 6, 10))

    endless = SimpleNamespace(loader=lambda: ([item(2 * index), item(2 * index + 1)] for index in count()))
    monkeypatch.setattr(samples, "read_answers", read_answers)
    assert samples.read_cases(Engine(blind("Is it tilted?")), endless, Protocol(), 3) == ([], [])
    assert len(asked) == 3 * samples.LOOKED_AT


def test_answers_have_the_rows_of_a_full_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, so that they are rounded as those of a run."""
    rows, engine = [], Engine(blind("Is it tilted?"), micro_batch=MicroBatch(4, padded=True))

    def read_answers(*given: Any, **more: Any) -> list[SimpleNamespace]:
        rows.append(given[7])  # `copies`
        return [SimpleNamespace(target=None, off_format=True, image_id="i")]

    monkeypatch.setattr(samples, "read_answers", read_answers)
    monkeypatch.setattr(sanity_checks, "read_answers", read_answers)
    sample = Sample("s", image_id="i", question="Is it tilted?", kind="yes_no")
    loader = SimpleNamespace(loader=lambda: [[SampleItem(sample, torch.zeros(3, 6, 10))]])
    samples.read_cases(engine, loader, Protocol(), 1)  # type: ignore[arg-type]
    case: Any = SimpleNamespace(
        image_id="i", kind="yes_no", finding_cells=None, prompt=engine.vlm.prompt("Is it tilted?")
    )
    sanity_checks._answers(engine, [torch.zeros(3, 6, 10)], [case], ["Is it tilted?"], Protocol())
    assert rows == [4, 4]


def test_questions_of_several_pictures_are_checked_like_others(tmp_path: Path) -> None:
    """All are of the first one's number of pictures; every check that looks into the model passes."""
    rows = {row["image_id"]: Sample.from_row(row) for row in pq.read_table(bundled_manifest()).to_pylist()}
    prior, *others = rows.values()
    before = ShownImage(prior.image_id, prior.image_path, "prior")
    several = [
        replace(
            one,
            sample_id=f"s{number}",
            kind="open",  # in format, whatever a random model says
            images=(before, ShownImage(one.image_id, one.image_path, "current")),
        )
        for number, one in enumerate(others[:3])
    ]
    write_manifest([several[0], replace(prior, sample_id="alone"), *several[1:]], tmp_path / "m.parquet")
    processor = random_processor()
    vlm = Gemma3VLM(random_model(processor.tokenizer, seed=1), processor)
    data = CXRVQADataModule(str(tmp_path / "m.parquet"), str(bundled_manifest().parent))
    data.image_size, protocol = vlm.image_size, Protocol(("mean",), steps=4, random_orders=2)
    pictures, cases = samples.read_cases(Engine(vlm), data, protocol, 3)
    assert [case.image_id for case in cases] == [one.pictures_id for one in several]
    assert all(picture.shape[1] == 2 * vlm.image_size[0] for picture in pictures)
    checks = [*model_checks(SimpleNamespace(engine=Engine(vlm), protocol=protocol), pictures[0], cases[0])]
    assert {check.status for check in checks} == {"pass"}
    assert "image tokens in a block for each picture" in {check.name for check in checks}
    result = sanity(Engine(vlm.showing(2)), build_methods({"gradient": {}, "edges": {}}), pictures, cases, protocol)
    blank = result.methods["edges"].inputs["blank picture"]
    assert blank.spearman is None or abs(blank.spearman) < 0.5
    assert result.methods["gradient"].interval is not None and result.methods["edges"].failed is False
