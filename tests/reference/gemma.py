"""Gemma 3 without tricks: one picture, one full forward of the whole model, NumPy for everything after the logits.

Nothing here uses the cache, the stages or the tokenizer code of `cxr_faith.vlm`.
"""

import copy

import numpy as np
import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration

WORDS = {"yes": ("yes", "Yes", "YES", " yes", " Yes", " YES"), "no": ("no", "No", "NO", " no", " No", " NO")}


def twin_model(model, attention="eager"):
    """A second model with the same weights and a config of its own."""
    config = copy.deepcopy(model.config)
    twin = Gemma3ForConditionalGeneration._from_config(config, attn_implementation=attention)
    twin.load_state_dict(model.state_dict())
    return twin.eval().requires_grad_(False)


def inputs(vlm, question):
    """(input_ids, token_type_ids) as the processor itself makes them."""
    picture = Image.new("RGB", vlm.image_size[::-1])
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    encoded = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return encoded["input_ids"][0].tolist(), encoded["token_type_ids"][0].tolist()


def all_logits(vlm, model, picture, question, forced=(), image_types=True):
    """float64 logits [L, vocabulary] of the question followed by forced answer tokens."""
    ids, types = inputs(vlm, question)
    ids, types = ids + list(forced), types + [0] * len(forced)
    if not image_types:
        types = [0] * len(types)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([ids]),
            pixel_values=picture[None],
            token_type_ids=torch.tensor([types]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        )
    return output.logits[0].double().numpy()


def logsumexp(values):
    top = values.max()
    return top + np.log(np.exp(values - top).sum())


def word_ids(vlm, answer):
    """Every id that encodes one of the words as a single token."""
    ids = set()
    for word in WORDS[answer]:
        encoded = vlm.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(encoded) == 1:
            ids.add(encoded[0])
    return sorted(ids)


def margin(vlm, logits):
    """Yes/no margin of one row of logits."""
    return logsumexp(logits[word_ids(vlm, "yes")]) - logsumexp(logits[word_ids(vlm, "no")])


def letter_ids(vlm, options):
    """Every id that encodes a letter as a single token, for each of the first letters."""
    by_letter = []
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:options]:
        forms = [letter, " " + letter, "(" + letter, " (" + letter, letter + ".", letter + ")", letter + ":"]
        encoded = [vlm.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        by_letter.append(sorted({ids[0] for ids in encoded if len(ids) == 1}))
    return by_letter


def letter_probs(vlm, logits, options):
    """(softmax over the letters, their probability together) of one row of logits."""
    p = np.exp(logits - logsumexp(logits))
    own = np.array([p[ids].sum() for ids in letter_ids(vlm, options)])
    return own / own.sum(), own.sum()


def letter_score(vlm, logits, target):
    """(s, probability, standing) of the chosen letter from one row of logits."""
    by_letter = [logsumexp(logits[ids]) for ids in letter_ids(vlm, len(target.letters))]
    others = [value for place, value in enumerate(by_letter) if place != target.chosen]
    s = by_letter[target.chosen] - max(others)
    return s, letter_probs(vlm, logits, len(target.letters))[0][target.chosen], s


def score(vlm, model, picture, question, target):
    """(s, probability, standing) of one picture."""
    if target.kind == "letter":
        return letter_score(vlm, all_logits(vlm, model, picture, question)[-1], target)
    if target.kind == "margin":
        s = target.sign * margin(vlm, all_logits(vlm, model, picture, question)[-1])
        return s, 1 / (1 + np.exp(-s)), s
    answer = list(target.answer_ids)
    logits = all_logits(vlm, model, picture, question, answer)
    first = len(logits) - len(answer)
    log_odds, standing = [], []
    for index in target.scored:
        row = logits[first + index - 1]  # the logit at p - 1 predicts the token at p
        gold = answer[index]
        log_odds.append(row[gold] - logsumexp(np.delete(row, gold)))
        standing.append(row[gold] - np.delete(row, gold).max())
    p = 1 / (1 + np.exp(-np.array(log_odds)))
    return float(np.mean(log_odds)), float(np.mean(p)), float(np.min(standing))


def greedy(vlm, model, picture, question, count):
    """Up to `count` tokens, one whole forward for each; stops before <end_of_turn> or <eos>."""
    stops = [vlm.tokenizer.convert_tokens_to_ids(token) for token in ("<end_of_turn>", "<eos>")]
    answer = []
    for _ in range(count):
        token = int(all_logits(vlm, model, picture, question, answer)[-1].argmax())
        if token in stops:
            break
        answer.append(token)
    return answer


def compose(original, removed, kept_cells, grid):
    """One picture as a NumPy array [3, H, W], cell by cell."""
    picture = np.array(removed, copy=True)
    cell_h, cell_w = original.shape[1] // grid[0], original.shape[2] // grid[1]
    for row in range(grid[0]):
        for column in range(grid[1]):
            if kept_cells[row * grid[1] + column]:
                top, left = row * cell_h, column * cell_w
                block = np.s_[:, top : top + cell_h, left : left + cell_w]
                picture[block] = original[block]
    return picture


def curve(vlm, model, original, removed, order, k, mode, question, target):
    """(s, probability, standing) at every step, [T + 1, 3]."""
    points = []
    for count in k:
        first = set(list(order)[:count])
        kept = [(cell in first) == (mode == "insertion") for cell in range(len(order))]
        picture = torch.from_numpy(compose(original.numpy(), removed.numpy(), kept, vlm.grid))
        points.append(score(vlm, model, picture, question, target))
    return np.array(points)
