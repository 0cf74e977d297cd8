"""From replies to targets, predictions and correctness; no model is run."""

import pytest

from cxr_faith.vlm import Prompt, Reply, Target
from cxr_faith.vlm.answers import (
    AnswerError,
    is_correct,
    is_mismatch,
    make_target,
    parse_target,
    predicted_answer,
    question_kind,
)

PROMPT = Prompt("Is there a nodule?", tuple(range(10)), tuple(range(7)), 3)


class Words:
    """The one thing of a model that targets need."""

    def decode(self, token_ids):
        return [f"w{token}" for token in token_ids]


def reply(margin=2.0, ids=(40, 41, 42), content=None, text="yes", opens=True, mass=0.9):
    return Reply(tuple(ids), tuple(range(len(ids))) if content is None else content, text, margin, mass, opens)


def target(kind, wanted, **answer):
    return make_target(Words(), PROMPT, reply(**answer), kind, wanted)


def test_unstated_kind_follows_the_first_token():
    assert question_kind(None, reply(opens=True)) == "yes_no"
    assert question_kind(None, reply(opens=False)) == "open"
    assert question_kind("choice", reply(opens=True)) == "choice"
    assert question_kind("yes_no", reply(opens=False)) == "yes_no"


@pytest.mark.parametrize(("given", "parsed"), [("answer", "answer"), ("first", "first"), (0, 0), ("3", 3)])
def test_target_spellings(given, parsed):
    assert parse_target(given) == parsed


@pytest.mark.parametrize("given", ["all", "", -1, "-1", 1.5, True, None, "1.0"])
def test_wrong_target_spellings(given):
    with pytest.raises(ValueError, match="target must be 'answer', 'first' or a 0-based token index"):
        parse_target(given)


@pytest.mark.parametrize(("margin", "sign"), [(2.0, 1), (0.0, 1), (-0.0, 1), (-1e-9, -1)])
@pytest.mark.parametrize("wanted", ["answer", "first"])
def test_yes_no_targets_are_the_margin_towards_the_models_own_answer(margin, sign, wanted):
    made = target("yes_no", wanted, margin=margin)
    assert (made.kind, made.sign, made.name, made.forced_ids) == ("margin", sign, wanted, ())
    assert made.read_positions(PROMPT) == [PROMPT.length - 1]


def test_answer_targets_are_all_content_tokens():
    made = target("open", "answer", ids=(40, 1, 42, 43), content=(0, 2, 3))
    assert made == Target("tokens", "answer", answer_ids=(40, 1, 42, 43), scored=(0, 2, 3))
    assert made.forced_ids == (40, 1, 42)  # the last one is predicted, not fed
    assert made.read_positions(PROMPT) == [16, 18, 19]


def test_first_and_integer_targets():
    first = target("choice", "first", ids=(1, 41, 42), content=(1, 2))
    assert (first.name, first.scored, first.forced_ids, first.read_positions(PROMPT)) == ("first", (1,), (1,), [17])
    second = target("open", 2)
    assert (second.name, second.scored, second.forced_ids) == ("2", (2,), (40, 41))
    token = target("yes_no", 0, margin=-3.0)
    assert (token.kind, token.scored, token.forced_ids, token.sign) == ("tokens", (0,), (), 1)


def test_targets_that_do_not_exist():
    with pytest.raises(AnswerError, match=r"no answer token 3: the answer has 3 \('w40' 'w41' 'w42'\)"):
        target("open", 3)
    for wanted in ("answer", "first", 0):
        with pytest.raises(AnswerError, match="the model's answer to 'Is there a nodule\\?' is empty"):
            target("open", wanted, ids=())
    with pytest.raises(AnswerError, match="is empty"):
        target("choice", "answer", ids=(1,), content=())
    assert target("yes_no", "answer", ids=()).kind == "margin"  # the margin needs no text


def test_predictions():
    assert [predicted_answer(reply(margin=m), "yes_no") for m in (1.0, 0.0, -1.0)] == ["yes", "yes", "no"]
    assert predicted_answer(reply(margin=-1.0, text="left lung"), "choice") == "left lung"


@pytest.mark.parametrize(
    ("text", "margin", "mismatch"),
    [
        ("yes", 1.0, False),
        ("Yes, there is.", 1.0, False),
        (" **No**", -1.0, False),
        ("no", 1.0, True),
        ("nodule", -1.0, True),
        ("", 1.0, True),
        ("yesterday", 1.0, True),
    ],
)
def test_mismatch_of_text_and_margin(text, margin, mismatch):
    assert is_mismatch(reply(margin=margin, text=text), "yes_no") is mismatch
    assert is_mismatch(reply(margin=margin, text=text), "open") is False


@pytest.mark.parametrize(
    ("predicted", "reference", "correct"),
    [
        ("yes", ["yes"], True),
        ("no", ["yes"], False),
        ("Yes.", ["yes"], True),
        ("nodule, pleural effusion", ["pleural effusion", "nodule"], True),
        ("nodule", ["pleural effusion", "nodule"], False),
        ("nodule, mass", ["nodule"], False),
        ("no finding", [], True),
        ("None", [], True),
        ("nodule", [], False),
        ("no finding", ["none"], True),
        ("", ["nodule"], False),
        ("left", None, None),
    ],
)
def test_correctness(predicted, reference, correct):
    assert is_correct(predicted, reference) is correct
