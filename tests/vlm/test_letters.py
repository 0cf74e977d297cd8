"""Letters of options: their tokens, the answer's probabilities, and the margin that is explained."""

import numpy as np
import pytest
import torch

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.tam import explained_ids, read_target
from cxr_faith.cases import compute_maps, read_answers
from cxr_faith.protocol import Protocol
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.config import INSTRUCTION_TEMPLATE, OPTION_TEMPLATE, PromptOptions
from cxr_faith.vlm.errors import PromptError
from cxr_faith.vlm.letters import letter_ids
from cxr_faith.vlm.reasoning import Reasoning
from tests.reference import gemma

ASKED = "Which finding is seen?\nA. Edema\nB. Nodule\nC. Mass\nD. None of them"


class Spelled:
    """A tokenizer that knows some pieces only; all else takes two tokens."""

    unk_token_id = 0

    def __init__(self, *pieces):
        self.pieces = pieces

    def encode(self, text, add_special_tokens):
        return [self.pieces.index(text) + 1] if text in self.pieces else [0, 0]


def test_letters_are_all_their_single_tokens():
    assert letter_ids(Spelled("A", "(B", " A", "C", "B", "yes", "B)"), 3) == ((1, 3), (2, 5, 7), (4,))
    assert letter_ids(Spelled(), 0) == ()


def test_letters_of_the_bundled_tokenizer_are_those_that_encode_to_one_token(random_vlm):
    assert [list(ids) for ids in letter_ids(random_vlm.tokenizer, 4)] == gemma.letter_ids(random_vlm, 4)


def test_a_tokenizer_without_letters_costs_the_question():
    with pytest.raises(PromptError, match="no single token for the letter B"):
        letter_ids(Spelled("A", "C"), 3)
    unknown = Spelled("A")
    unknown.encode = lambda text, add_special_tokens: [0]
    with pytest.raises(PromptError, match="no single token for the letter A"):
        letter_ids(unknown, 2)
    same = Spelled()
    same.encode = lambda text, add_special_tokens: [7]
    with pytest.raises(PromptError, match="two letters of options"):
        letter_ids(same, 2)


def test_scores_are_the_plain_models(random_vlm, pictures):
    """Margin over the best other letter, softmax over the letters, and the same from `trace` and `answer`."""
    pixels, prompt = pictures(random_vlm, 3), random_vlm.prompt(ASKED, 4)
    plain = gemma.twin_model(random_vlm.model)
    with torch.no_grad():
        tokens = random_vlm.encode(pixels)
        prefix = random_vlm.prefill(tokens)
        for chosen in range(4):
            target = Target("letter", letters=prompt.letters, chosen=chosen)
            scores = random_vlm.score(prefix, prompt, target)
            expected = np.array([gemma.score(random_vlm, plain, picture, ASKED, target) for picture in pixels])
            computed = torch.stack([scores.s, scores.probability, scores.standing], dim=1).numpy()
            assert np.abs(computed - expected).max() < 1e-4
            assert (scores.log_p.exp() - scores.probability).abs().max() < 1e-6
            traced = random_vlm.trace(tokens, [prompt] * 3, [target] * 3)
            assert traced.shape == (3, 1) and (traced[:, 0] - scores.s).abs().max() < 1e-4
        alone = random_vlm.answer(random_vlm.prefill(tokens[:1]), prompt, 2)
    row = gemma.all_logits(random_vlm, plain, pixels[0], ASKED)[-1]
    own, mass = gemma.letter_probs(random_vlm, row, 4)
    assert np.abs(np.array(alone.option_probs) - own).max() < 1e-5 and abs(alone.option_mass - mass) < 1e-5
    assert alone.chosen == int(np.argmax(own))


def test_two_letters_have_the_probability_of_their_margin(random_vlm, pictures):
    prompt = random_vlm.prompt("Is it left?\nA. left\nB. right", 2)
    with torch.no_grad():
        prefix = random_vlm.prefill(random_vlm.encode(pictures(random_vlm, 4)))
        first, second = (
            random_vlm.score(prefix, prompt, Target("letter", letters=prompt.letters, chosen=c)) for c in (0, 1)
        )
    assert torch.equal(first.s, -second.s) and torch.equal(first.probability, first.s.sigmoid())


def test_each_target_of_a_batch_has_its_own_letter(random_vlm, pictures):
    prompt, tokens = random_vlm.prompt(ASKED, 4), random_vlm.encode(pictures(random_vlm, 2)).detach()
    targets = [Target("letter", letters=prompt.letters, chosen=chosen) for chosen in (1, 3)]
    both = random_vlm.trace(tokens, [prompt] * 2, targets)
    alone = [random_vlm.trace(tokens[[i]], [prompt], [targets[i]]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_tam_reads_the_letters_margin(random_vlm, pictures):
    prompt, kept = random_vlm.prompt(ASKED, 4), {}
    target = Target("letter", letters=prompt.letters, chosen=2)
    with torch.no_grad():
        tokens = random_vlm.encode(pictures(random_vlm, 2))
        s = random_vlm.trace(tokens, [prompt] * 2, [target] * 2, states=lambda layer, values: kept.update({0: values}))
        read = read_target(random_vlm, kept[0], [target] * 2, 0)
    torch.testing.assert_close(read[:, -1:], s, atol=1e-4, rtol=1e-4)
    assert explained_ids(random_vlm, target, 0) == prompt.letters[2]


def test_every_method_explains_a_letter(random_vlm, random_sae, pictures, cheap):
    pixels = pictures(random_vlm, 1)[0]
    [case] = read_answers(random_vlm, pixels, "a", [ASKED], ["option"], Protocol(max_new_tokens=1), options=[4])
    assert (case.target.kind, case.target.chosen) == ("letter", case.reply.chosen)
    compute_maps(random_vlm, cheap, [pixels], [case], seed=0, only_in_format=False)
    assert case.maps.keys() == cheap.keys()
    assert all(np.isfinite(values).all() for values in case.maps.values())


@pytest.fixture
def cheap(random_sae):
    """Every method that needs no mask, with options that take no time."""
    from tests.runs import cheap_options

    own = cheap_options(random_sae)
    made = [name for name in METHODS if name != "file"]  # that one reads maps
    methods = build_methods({name: {"class": name, **own.get(name, {})} for name in made})
    return {name: method for name, method in methods.items() if not method.needs_mask}


def test_instruction_models_are_asked_for_the_letter(random_vlm):
    asked = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions(INSTRUCTION_TEMPLATE))
    letter, yes = (asked.tokenizer.decode(asked.prompt(ASKED, count).suffix_ids) for count in (4, 0))
    assert OPTION_TEMPLATE.replace("{question}", ASKED) in letter and "yes or no" in yes
    stated = Gemma3VLM(random_vlm.model, random_vlm.processor, PromptOptions("Look. {question}"))
    assert stated.prompt(ASKED, 4).ids == stated.prompt(ASKED).ids, "a stated template holds for all questions"


def test_a_model_that_thinks_gives_a_letter_after_its_thought(random_vlm, pictures):
    options = PromptOptions(reasoning=Reasoning("so", "then"), max_reasoning_tokens=2)
    thinking = Gemma3VLM(random_vlm.model, random_vlm.processor, options)
    with torch.no_grad():
        prefix = thinking.prefill(thinking.encode(pictures(random_vlm, 1)))
        reply = thinking.answer(prefix, thinking.prompt(ASKED, 4), 1)
        target = Target("letter", letters=reply.prompt.letters, chosen=reply.chosen)
        scores = thinking.score(prefix, reply.prompt, target)
    assert reply.prompt.thought and len(reply.option_probs) == 4
    assert abs(float(scores.probability) - max(reply.option_probs)) < 1e-5
