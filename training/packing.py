"""Packs all questions about a picture into one sequence, each independent of the others.

The image prefix runs once. Each question's positions restart after it, and the attention mask lets a question see only
the prefix and itself, so the result equals one forward pass per question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration, GemmaTokenizer

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
        image_tokens: number of image tokens.
    """

    def __init__(self, tokenizer: GemmaTokenizer, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        text = f"<bos><start_of_turn>user\n\n\n<start_of_image>{'<image_soft_token>' * image_tokens}<end_of_image>"
        self.prefix = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
        self.is_image = self.prefix == tokenizer.convert_tokens_to_ids("<image_soft_token>")
        self.end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
        self.tokens = lru_cache(maxsize=None)(self._tokens)

    def _tokens(self, question: str, reply: str) -> tuple[list[int], int]:
        """Token ids of a question with its reply, and the number of those that come before the reply."""
        asked = f"\n\n{question}<end_of_turn>\n<start_of_turn>model\n"
        before = self.tokenizer.encode(asked, add_special_tokens=False)
        return [*before, *self.tokenizer.encode(reply, add_special_tokens=False), self.end], len(before)

    def pack(self, lessons: list[list[tuple[str, str, float | None]]], room: int = ROOM) -> Pack:
        """Pack the lessons of each picture into `room` tokens; lessons that do not fit are left out."""
        rows = [[(*self.tokens(question, reply), margin) for question, reply, margin in row] for row in lessons]
        shape = (len(rows), room)
        pack = Pack(
            ids=torch.zeros(shape, dtype=torch.long),
            segment=torch.full(shape, -1),
            position=torch.full(shape, len(self.prefix)),
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
                pack.position[b, at:end] = len(self.prefix) + torch.arange(len(ids))
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
        image[:prefix] = self.is_image.to(segment.device)
        allowed = (causal | (image[:, None] & image)).repeat(batch, 1, 1)
        allowed[:, prefix:, prefix:] &= segment[:, :, None] == segment[:, None, :]
        floor = torch.finfo(torch.float32).min
        return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, floor)[:, None]


def embed_images(model: Gemma3ForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Image tokens [batch, N, hidden] and the tower's output [batch, N, width] for pixels [batch, 3, side, side]."""
    vision = model.model.get_image_features(pixels, return_dict=True)
    return vision.pooler_output, vision.last_hidden_state


def forward_tokens(model: Gemma3ForConditionalGeneration, packer: Packer, image: Tensor, pack: Pack) -> Tensor:
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
    head = torch.arange(prefix.shape[1], device=image.device).expand(len(image), -1)
    mask = packer.mask(pack.segment)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask={"full_attention": mask, "sliding_attention": mask},
        position_ids=torch.cat([head, pack.position], 1),
        use_cache=False,
    ).last_hidden_state
    return hidden[:, prefix.shape[1] :]


def forward(model: Gemma3ForConditionalGeneration, packer: Packer, pixels: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Hidden states of the suffix [batch, S, hidden] and the tower's output [batch, N, width]."""
    image, tower = embed_images(model, pixels)
    return forward_tokens(model, packer, image, pack), tower
