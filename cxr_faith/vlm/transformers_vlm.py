"""What all families share: answers, scores and traces of a transformers model of vision tower and decoder.

A family (`cxr_faith.vlm.families`) adds how pictures become image tokens, how a question becomes a prompt, and its
`Decoder`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from cxr_faith.data.sample import Turn
from cxr_faith.vlm.base import VLM, Observer, PictureScores, Prompt, Reply, Target
from cxr_faith.vlm.capture import observed, observed_states
from cxr_faith.vlm.checkpoint import hash_weights
from cxr_faith.vlm.decoder import Decoder, feed_after
from cxr_faith.vlm.generation import greedy, stop_ids, think, yes_no_step
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.letters import letter_step
from cxr_faith.vlm.prefix_cache import ImageTokens, Prefix, batch_of
from cxr_faith.vlm.prompts import Prompter
from cxr_faith.vlm.readout import Readout
from cxr_faith.vlm.reasoning import opened_thought
from cxr_faith.vlm.yes_no import yes_no_ids

_OPENING = 8
"""Tokens of an answer that can hold the mark of a thought."""

V = TypeVar("V", bound="TransformersVLM")


class TransformersVLM(VLM):
    """A frozen transformers model in evaluation mode, with its processor.

    Args:
        processor: the model's processor.
        decoder: the language part of a model that is on its device.
        layout: cells, and where the image tokens lie.
        image_size: (H, W) of the pictures that it takes, in pixels.
        stops: tokens that end a turn, besides those of `generation_config`.
        prompter: makes prompts with the processor.
        source: folder or hub id that the model came from.

    Attributes:
        model: the transformers model.
        shortcuts: make attention masks once for each length, stop the prefix pass at the last layer's keys and values,
            build composed pictures from patch embeddings. Off, every pass is transformers' own, with the same bits.
    """

    shortcuts: bool = True

    def __init__(
        self,
        processor: Any,
        decoder: Decoder,
        layout: Layout,
        image_size: tuple[int, int],
        stops: Sequence[str],
        prompter: Prompter,
        source: str,
    ) -> None:
        tokenizer = processor.tokenizer
        yes_ids, no_ids = yes_no_ids(tokenizer)
        grid, kinds, device = layout.grids[0], decoder.layer_types, decoder.model.device
        super().__init__(grid, image_size, kinds, yes_ids, no_ids, device, special_ids=frozenset(prompter.control))
        self.model: Any = decoder.model.eval().requires_grad_(False)
        self.processor, self.tokenizer, self.decoder = processor, tokenizer, decoder
        self.prompter, self.source, self.layout, self.key_layers = prompter, source, layout, decoder.key_layers
        self.single: TransformersVLM = self
        self._shown: dict[int, TransformersVLM] = {}
        self._stops = stop_ids(tokenizer, self.model, stops)
        self.readout = Readout(decoder, yes_ids, no_ids)
        self._prompt = lru_cache(maxsize=4096)(prompter.prompt)

    def to(self, device: torch.device | str) -> Self:
        """Move the model; returns itself."""
        self.model.to(device)
        self.device = self.model.device
        self.decoder.forget()
        self._shown.clear()
        return self

    def showing(self, pictures: int) -> "TransformersVLM":
        """The same model, shown this many pictures a question; see `VLM.showing`."""
        if self.single is not self:
            return self.single.showing(pictures)
        if pictures not in self._shown:
            self._shown[pictures] = self if pictures == 1 else _shown(self, pictures)
        return self._shown[pictures]

    def prompt(self, question: str, options: int = 0, turns: tuple[Turn, ...] = ()) -> Prompt:
        """Tokenize a question with the chat template, once; see `VLM.prompt`."""
        return self._prompt(question, options, turns)

    def prefill(self, tokens: Tensor) -> Prefix:
        """Image tokens [batch, tokens, hidden] to what the questions share; see `VLM.prefill`."""
        if not self.shares_prefix:
            return ImageTokens(tokens)
        self.counts.prefill += len(tokens)
        prompt = self.prompt("")
        embedded = self.decoder.embed(tokens, [prompt.prefix_ids] * len(tokens), prompt.image_starts)
        return self.decoder.prefill(embedded, prompt.image_starts, self.shortcuts)

    def answer(self, prefix: Prefix, prompt: Prompt, max_new_tokens: int) -> Reply:
        """Greedy answer for a prefix of one picture, or of copies of it, after a thought if one is asked for."""
        copies = batch_of(prefix)
        self.counts.score += copies
        self.counts.padding += copies - 1
        asked, feed = prompt, feed_after(self.decoder, prefix, prompt, self.shortcuts)
        prompt = think(self.prompter, asked, feed, self._stops)
        feed = feed_after(self.decoder, prefix, prompt, self.shortcuts)
        logits = feed(prompt.suffix_ids)
        margin, mass = yes_no_step(logits, self.yes_ids, self.no_ids)
        ids = greedy(logits, feed, self._stops, max_new_tokens)
        content = tuple(index for index, token in enumerate(ids) if token not in self.special_ids)
        option_probs, option_mass = letter_step(logits, prompt.letters) if prompt.letters else ((), 0.0)
        return Reply(
            token_ids=ids,
            content=content,
            text=self.tokenizer.decode([ids[index] for index in content]).strip(),
            margin=margin,
            yes_no_mass=mass,
            opens_yes_no=int(logits.argmax()) in (*self.yes_ids, *self.no_ids),
            opens_thought=opened_thought(self.tokenizer.decode(ids[:_OPENING])),
            prompt=None if prompt is asked else prompt,
            option_probs=option_probs,
            option_mass=option_mass,
        )

    def score(self, prefix: Prefix, prompt: Prompt, target: Target) -> PictureScores:
        """Scores of every picture of a prefix under one question."""
        batch, forced = batch_of(prefix), target.forced_ids
        self.counts.score += batch
        if isinstance(prefix, ImageTokens):
            whole = self.decoder.whole(prefix.tokens, [prompt.ids + forced] * batch, prompt.image_starts, prompt.length)
            hidden = whole[:, len(prompt.prefix_ids) :]
        else:
            hidden = self.decoder.extend(prefix, prompt.suffix_ids + forced, batch, self.shortcuts)
        read = [position - len(prompt.prefix_ids) for position in target.read_positions(prompt)]
        return self.readout.scores(hidden, read, target)

    def trace(
        self,
        tokens: Tensor,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        observer: Observer | None = None,
        states: Observer | None = None,
    ) -> Tensor:
        """Differentiable token scores of full sequences; see `VLM.trace`."""
        self.counts.trace += len(tokens)
        ids = [p.ids + t.forced_ids for p, t in zip(prompts, targets, strict=True)]
        shapes = {(len(i), t.kind, t.scored) for i, t in zip(ids, targets, strict=True)}
        if len(shapes) != 1:
            raise ValueError("prompts of one trace must be of equal length and targets of equal shape")
        decoder, starts = self.decoder, prompts[0].image_starts
        with observed(decoder.attention_configs, observer), observed_states(decoder.layers, states):
            hidden = decoder.whole(tokens, ids, starts, prompts[0].length)
        return self.readout.token_scores(hidden, targets[0].read_positions(prompts[0]), targets)

    def token_logits(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Logits of some tokens at every position; see `VLM.token_logits`."""
        return self.decoder.head.token_logits(states, token_ids)

    def decode(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return [self.tokenizer.decode([token]) for token in token_ids]

    def identity(self) -> dict[str, str]:
        """Source, a hash of all weights, and the settings."""
        return {"source": self.source, "weights": hash_weights(self.model)} | self.settings()

    def settings(self) -> dict[str, str]:
        """Revision (a commit; empty for a folder), dtype, and how questions are put."""
        revision = getattr(self.model.config, "_commit_hash", None) or ""
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"revision": revision, "dtype": dtype} | self.prompter.options.identity()


def _shown(vlm: V, pictures: int) -> V:
    """A model with the same weights and counts that is shown sheets of pictures."""
    view = copy(vlm)
    view.single, view.layout = vlm, Layout.joined([vlm.layout] * pictures)
    view.grid, view.image_size = ((pictures * height, width) for height, width in (vlm.grid, vlm.image_size))
    view.decoder = type(vlm.decoder)(vlm.model, view.layout)
    view.prompter = replace(vlm.prompter, pictures=pictures)
    view.readout = Readout(view.decoder, vlm.yes_ids, vlm.no_ids)
    view._prompt = lru_cache(maxsize=4096)(view.prompter.prompt)
    return view
