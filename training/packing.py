"""Packs all questions about a picture into one sequence, each independent of the others.

The image prefix runs once. Each question's positions restart after it, and the attention mask lets a question see only
the prefix and itself, so the result equals one forward pass per question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from architecture import GRID, Family
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_WEIGHT = 0.1
ROOM = 96
CONTENT_WEIGHT = 1.0
SURE = 0.9


@dataclass
class Pack:
    """Suffix tokens of a batch of pictures, padded to length S.

    Attributes:
        ids: int [batch, S].
        segment: which question a token belongs to, int [batch, S]; -1 for padding.
        position: position ids, int [batch, S].
        target: token to predict at each place, int [batch, S]; -100 where there is none.
        weight: weight of that prediction, float [batch, S].
        margin: target yes/no margin, -1 to 1, where a yes or no is predicted, float [batch, S]; NaN: ±1 by the word.
    """

    ids: Tensor
    segment: Tensor
    position: Tensor
    target: Tensor
    weight: Tensor
    margin: Tensor


class Packer:
    """Turns lessons into packs.

    Args:
        tokenizer: the model's tokenizer.
        family: the model's family.

    Attributes:
        prefix: token ids of the prompt up to the end of the image, int64 [P].
        is_image: which of them are image tokens.
        places: their positions, int64 [rows, P].
        next: the position of the token that follows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, family: Family) -> None:
        self.tokenizer, self.family = tokenizer, family
        text = f"{family.before}{family.image * GRID**2}{family.after}"
        self.prefix = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
        self.is_image = self.prefix == tokenizer.convert_tokens_to_ids(family.image)
        self.places = family.places(self.is_image)
        self.next = int(self.places.max()) + 1
        self.end = tokenizer.convert_tokens_to_ids(family.end)
        self.tokens = lru_cache(maxsize=None)(self._tokens)

    def _tokens(self, question: str, reply: str) -> tuple[list[int], int]:
        """Token ids of a question with its reply, and the number of those that come before the reply."""
        before = self.tokenizer.encode(self.family.asked.format(question=question), add_special_tokens=False)
        return [*before, *self.tokenizer.encode(reply, add_special_tokens=False), self.end], len(before)

    def pack(self, lessons: list[list[tuple[str, str, float | None]]], room: int = ROOM) -> Pack:
        """Pack the lessons of each picture into `room` tokens; lessons that do not fit are left out."""
        rows = [[(*self.tokens(question, reply), margin) for question, reply, margin in row] for row in lessons]
        shape = (len(rows), room)
        pack = Pack(
            ids=torch.zeros(shape, dtype=torch.long),
            segment=torch.full(shape, -1),
            position=torch.full(shape, self.next),
            target=torch.full(shape, -100),
            weight=torch.zeros(shape),
            margin=torch.full(shape, torch.nan),
        )
        for b, row in enumerate(rows):
            at = 0
            for s, (ids, before, margin) in enumerate(row):
                end = at + len(ids)
                if end > room:
                    break
                pack.ids[b, at:end] = torch.tensor(ids)
                pack.segment[b, at:end] = s
                pack.position[b, at:end] = self.next + torch.arange(len(ids))
                pack.target[b, at + before - 1 : end - 1] = torch.tensor(ids[before:])
                pack.weight[b, at + before - 1 : end - 1] = CONTENT_WEIGHT
                pack.weight[b, end - 2] = END_WEIGHT
                if margin is not None:
                    pack.margin[b, at + before - 1] = margin
                    if abs(margin) < SURE:  # a partly visible lesion has a target margin, but no right word
                        pack.weight[b, at + before - 1] = 0.0
                at = end
        return pack

    def mask(self, segment: Tensor) -> Tensor:
        """Additive attention mask [batch, 1, P + S, P + S] for suffix segments [batch, S]."""
        batch, length = segment.shape
        prefix = len(self.prefix)
        index = torch.arange(prefix + length, device=segment.device)
        causal = index[:, None] >= index
        image = torch.zeros(prefix + length, dtype=torch.bool, device=segment.device)
        image[:prefix] = self.is_image.to(segment.device) & self.family.looks_ahead
        allowed = (causal | (image[:, None] & image)).repeat(batch, 1, 1)
        allowed[:, prefix:, prefix:] &= segment[:, :, None] == segment[:, None, :]
        floor = torch.finfo(torch.float32).min
        return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, floor)[:, None]


def forward_tokens(model: PreTrainedModel, packer: Packer, image: Tensor, pack: Pack) -> Tensor:
    """Run the decoder on a packed batch.

    Args:
        model: the model.
        packer: the packer that made the pack.
        image: image tokens [batch, N, hidden].
        pack: the questions, on the same device.

    Returns:
        hidden states of the suffix [batch, S, hidden], after the final norm.
    """
    embed = model.get_input_embeddings()
    prefix = embed(packer.prefix.to(image.device)).expand(len(image), -1, -1)
    first = int(packer.is_image.nonzero()[0])
    last = first + int(packer.is_image.sum())
    embeds = torch.cat([prefix[:, :first], image.to(prefix.dtype), prefix[:, last:], embed(pack.ids)], 1)
    rows, batch = len(packer.places), len(image)
    places = packer.places.to(image.device)[:, None].expand(-1, batch, -1)
    positions = torch.cat([places, pack.position.expand(rows, -1, -1)], 2)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=packer.mask(pack.segment),
        position_ids=positions if rows > 1 else positions[0],
        use_cache=False,
    ).last_hidden_state
    return hidden[:, prefix.shape[1] :]


def forward(model: PreTrainedModel, packer: Packer, pixels: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Hidden states of the suffix [batch, S, hidden] and the cells' features; see `Family.features`."""
    image, tower = packer.family.features(model, pixels)
    return forward_tokens(model, packer, image, pack), tower
