"""`Scores`, what `Explainer.evaluate` returns: its fields, JSON, and its row of a frame."""

import ast
import inspect
import json
import math
from dataclasses import FrozenInstanceError, fields

import pandas as pd
import pytest

from cxr_faith.explainer import Scores
from cxr_faith.records import RECORD_SCHEMA

NAMES = [field.name for field in fields(Scores)]


@pytest.fixture
def scores() -> Scores:
    return Scores(
        image_id="i1",
        question="Is there a nodule?",
        method="chefer",
        substrate="mean",
        target="answer",
        status="degenerate",
        srg=math.nan,
        srg_logit=1 / 3,
        order=[1, 0],
        k=[0, 2],
        deletion_scores=[0.25, 0.125],
        insertion_scores=[0.125, math.nan],
    )


def test_fields_are_record_columns_with_a_sentence_each() -> None:
    assert set(NAMES) <= set(RECORD_SCHEMA.names)
    body = ast.parse(inspect.getsource(Scores)).body[0].body  # type: ignore[attr-defined]
    for field, sentence in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(sentence, ast.Expr), ast.unparse(field)
            text = ast.literal_eval(sentence.value)
            assert text[0].isupper() or text[0] in "`(", text
            assert text.endswith("."), text


def test_scores_are_frozen(scores: Scores) -> None:
    with pytest.raises(FrozenInstanceError):
        scores.srg = 1.0  # type: ignore[misc]


def test_scores_through_json(scores: Scores) -> None:
    values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert list(values) == NAMES
    assert values["srg"] is None and values["insertion_scores"] == [0.125, None]
    assert values["srg_logit"] == 1 / 3 and values["order"] == [1, 0]
    again = Scores.from_dict(values)
    assert again.to_dict() == values and again.srg_logit == scores.srg_logit


def test_a_row_of_records_becomes_scores(scores: Scores) -> None:
    row = dict.fromkeys(RECORD_SCHEMA.names) | scores.to_dict()
    assert Scores.from_dict(row).to_dict() == scores.to_dict()
    with pytest.raises(ValueError, match="no field 'srgg'"):
        Scores.from_dict(row | {"srgg": 1.0})
    with pytest.raises(ValueError, match="status"):
        Scores.from_dict({name: value for name, value in row.items() if name != "status"})


def test_a_frame_of_one_row_as_in_records(scores: Scores) -> None:
    frame = scores.to_frame()
    assert len(frame) == 1 and list(frame.columns) == [name for name in RECORD_SCHEMA.names if name in NAMES]
    row = frame.iloc[0]
    assert row["srg_logit"] == 1 / 3 and pd.isna(row["srg"]) and frame["srg"].dtype == float
    assert list(row["order"]) == [1, 0] and row["order"].dtype == "int32"
    assert len(pd.concat([frame, frame])) == 2
