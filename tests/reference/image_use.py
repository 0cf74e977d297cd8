"""Image use, slowly: one whole forward for each picture, loops over the rows of a manifest, and over samples."""

import numpy as np
import torch

from tests.reference import gemma
from tests.reference.pairs import model_pixels


def use_of(margin, blank, swapped):
    """The class of a yes/no answer from its three margins."""

    def goes(other):
        changed = (margin >= 0) != (other >= 0)
        return changed or abs(other) < abs(margin) / 2

    gone = [goes(other) for other in (blank, swapped)]
    return "uses" if all(gone) else "mixed" if any(gone) else "ignores"


def use_of_tokens(intact, *changed):
    """The class of an answer in words from its score, and its (score, standing) on the blank and the other picture."""
    gone = [standing < 0 or intact - score > abs(intact) / 2 for score, standing in changed]
    return "uses" if all(gone) else "mixed" if any(gone) else "ignores"


def blank(vlm, file):
    """A picture of one color, the mean of the file's."""
    picture = model_pixels(vlm, file)
    for channel in picture:
        channel[:] = channel.double().mean()
    return picture


def margin_on(vlm, model, file, question):
    """Margin of a question about a picture file."""
    return gemma.margin(vlm, gemma.all_logits(vlm, model, model_pixels(vlm, file), question)[-1])


def margin_blank(vlm, model, file, question):
    """Margin on a picture of one color, the mean of the file's."""
    return gemma.margin(vlm, gemma.all_logits(vlm, model, blank(vlm, file), question)[-1])


def margin_text_only(vlm, model, question):
    """Margin of the question alone, as the processor's own template writes it without a picture."""
    content = [{"type": "text", "text": question}]
    encoded = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_tensors="pt"
    )
    ids = encoded if isinstance(encoded, torch.Tensor) else encoded["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    return gemma.margin(vlm, logits.double().numpy())


def asks_the_same(row, other):
    """Whether two rows of a manifest ask the same question, so that their references can be compared."""
    if row["kind"] != other["kind"]:
        return False
    by_finding = [
        each["kind"] == "yes_no" and each["finding"] is not None and each.get("planted") is None
        for each in (row, other)
    ]
    if not all(by_finding):
        return not any(by_finding) and row["question"] == other["question"]
    nowhere = any(each["answer"] == ["no"] and each["side"] is None for each in (row, other))
    return row["finding"].lower() == other["finding"].lower() and (row["side"] == other["side"] or nowhere)


def stand_ins(rows, row):
    """(image ids with another reference answer to the same question, all image ids) of other patients."""
    patient = row["patient_id"] or row["image_id"]
    others = [each for each in rows if (each["patient_id"] or each["image_id"]) != patient]
    opposite = [
        each
        for each in others
        if row["answer"] is not None and each["answer"] not in (None, row["answer"]) and asks_the_same(row, each)
    ]
    return {each["image_id"] for each in opposite}, {each["image_id"] for each in others}


def wilson(hits, n_answers, n_patients):
    """Share with its interval as the two solutions of (p - share)² = z² p (1 - p) / n."""
    share, z2 = hits / n_answers, 1.959963984540054**2
    roots = np.roots([1 + z2 / n_patients, -(2 * share + z2 / n_patients), share**2])
    return share, min(roots), max(roots)


def is_away(mask, away, inside):
    """Whether cells [grid_h, grid_w] are as many as the mask's, inside, and neither on the mask nor beside it."""
    height, width = mask.shape
    near = {
        (row + down, column + right)
        for row in range(height)
        for column in range(width)
        if mask[row, column]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    cells = [(row, column) for row in range(height) for column in range(width) if away[row, column]]
    return len(cells) == mask.sum() and all(cell not in near and inside[cell] for cell in cells)
