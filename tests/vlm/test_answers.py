"""From replies to targets and predictions; no model is run."""

import pytest

from cxr_faith.vlm import Prompt, Reply, Target
from cxr_faith.vlm.answers import (
    AnswerError,
    is_mismatch,
    likelihood_ratios,
    make_target,
    parse_target,
    pick_token,
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


@pytest.mark.parametrize(
    ("given", "parsed"),
    [("answer", "answer"), ("first", "first"), (0, 0), ("3", 3), ("keyword:red", "keyword:red")],
)
def test_target_spellings(given, parsed):
    assert parse_target(given) == parsed


@pytest.mark.parametrize(
    "given", ["all", "", -1, "-1", 1.5, True, None, "1.0", "keyword:", "keyword: ", "keyword", "--5", "²"]
)
def test_wrong_target_spellings(given):
    with pytest.raises(ValueError, match="'answer', 'first', a 0-based token index or 'keyword:WORD', got"):
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


class Pieces:
    """A model whose answer is spelled by the given pieces; token 9 is yes, token 8 no."""

    yes_ids, no_ids = (9,), (8,)

    def __init__(self, *pieces):
        self.pieces = pieces

    def decode(self, token_ids):
        return [self.pieces[token] for token in token_ids]


@pytest.mark.parametrize(
    ("pieces", "keyword", "scored"),
    [
        (("pleural", " eff", "usion", ",", " nodule"), "effusion", (1, 2)),
        (("pleural", " eff", "usion", ",", " nodule"), "Pleural Effusion", (0, 1, 2)),
        (("Red", " and", " red"), "red", (0,)),
        (("scattered", " red"), "red", (1,)),
        (("a", " ", "nodule."), "nodule", (2,)),
        (("nodule", " in", " the", " lung"), "lung", (3,)),
    ],
)
def test_keyword_tokens_are_those_of_its_first_place(pieces, keyword, scored):
    answer = reply(ids=range(len(pieces)), text="".join(pieces))
    made = make_target(Pieces(*pieces), PROMPT, answer, "open", f"keyword:{keyword}")
    assert (made.kind, made.name, made.scored) == ("tokens", f"keyword:{keyword}", scored)
    assert made.read_positions(PROMPT) == [PROMPT.length - 1 + index for index in scored]
    assert make_target(Pieces(*pieces), PROMPT, answer, "yes_no", f"keyword:{keyword}").kind == "tokens"


def test_keywords_skip_special_tokens_and_must_be_there():
    pieces = Pieces("<x>", "no", "dule")
    target_of_word = make_target(pieces, PROMPT, reply(ids=(0, 1, 2), content=(1, 2)), "open", "keyword:nodule")
    assert target_of_word.scored == (1, 2)
    for absent in ("effusion", "dul", "x"):
        with pytest.raises(AnswerError, match=f"the keyword '{absent}' is not in the answer 'nodule'"):
            make_target(
                pieces, PROMPT, reply(ids=(0, 1, 2), content=(1, 2), text="nodule"), "open", f"keyword:{absent}"
            )


def test_pick_token():
    pieces = Pieces("<x>", ", ", "the", " answer", *[""] * 4, " no", " yes")
    answer = reply(ids=(0, 1, 2, 3, 9, 8), content=(1, 2, 3, 4, 5))
    assert pick_token(pieces, answer, "first_content") == 2
    assert pick_token(pieces, answer, "decision") == 4
    assert pick_token(pieces, answer, "llr", [0.1, -3.0, 2.0, 0.5, 2.0]) == 3
    assert pick_token(pieces, reply(ids=(2, 3)), "decision") == 0
    assert pick_token(pieces, reply(ids=(1,)), "first_content") == 0
    with pytest.raises(ValueError, match="strategy must be one of first_content, decision, llr"):
        pick_token(pieces, answer, "last")
    with pytest.raises(AnswerError, match="empty"):
        pick_token(pieces, reply(ids=()), "llr")


def test_likelihood_ratios_are_differences_of_log_probabilities(random_vlm, pictures):
    prompt, target = random_vlm.prompt("Is there a nodule?"), Target("tokens", "a", 1, (40, 41, 42), (0, 2))
    tokens = random_vlm.encode(pictures(random_vlm, 2))
    ratios = likelihood_ratios(random_vlm, tokens[:1], tokens[1:], prompt, target)
    for place, index in enumerate(target.scored):
        one = Target("tokens", "b", 1, target.answer_ids, (index,))
        log_p = random_vlm.score(random_vlm.prefill(tokens), prompt, one).log_p
        assert float(ratios[place]) == pytest.approx(float(log_p[0] - log_p[1]), abs=1e-4)
    assert ratios.abs().min() > 1e-3
