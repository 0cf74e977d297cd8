"""Token activation maps (TAM; Li et al., ICCV 2025).

The logit of the explained token at each image token, minus the part that earlier words of the text explain, filtered
against outliers. The image comes before the question, so the activations do not depend on the question; only the token
and its context do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cxr_faith.attribution.attention import at_image
from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, check_choice
from cxr_faith.attribution.layers import UNREAD, check_layer, decoder_layer
from cxr_faith.data.sheets import apart, together
from cxr_faith.vlm.base import VLM, Prompt, Target

TINY = torch.finfo(torch.float32).tiny


class Tam(Method):
    """Token activation map (Li et al. 2025): activation of the token minus that of its context, filtered.

    Activation source: a = ReLU(h · w_token) for a layer's normed states h of the image tokens; for the margin of a
    yes/no question, ReLU of the margin read at the image tokens. The context is the words of the question and of the
    answer so far, without words equal to the explained one. Each context word has its own map and a weight, its text
    relevance: the activation of the explained token at the word's position (a generated word at p is read at p-1). The
    weighted mean c of the maps is subtracted: ReLU(a - λc), with λ the least-squares scalar.

    Attention source: a is row p-1 of a layer, heads averaged. Ridge regression predicts it from the rows of the
    context words, and the map is the positive part of the residual.

    The map of several tokens is the mean of their maps.

    Args:
        source: `activation` (as published) or `attention`.
        layer: the decoder layer; negative counts from the end. `auto`: the middle of the decoder, see
            `cxr_faith.attribution.layers`. `last` is the published one; of its states `extras["caution"]` says that no
            answer depends on them.
        ridge: penalty of the regression, as a share of the mean squared norm of the context maps; `attention` only.
    """

    can_ablate = True

    def __init__(self, source: str = "activation", layer: int | str = "auto", ridge: float = 0.1) -> None:
        check_layer(layer, ("auto", "last"))
        self.layer = layer
        if ridge <= 0:
            raise ValueError(f"ridge must be positive, got {ridge}")
        self.source, self.ridge = check_choice("source", source, ("activation", "attention")), ridge

    def check(self, vlm: VLM) -> None:
        """Refuse a layer that the model does not have."""
        self.chosen_layer(vlm)

    def chosen_layer(self, vlm: VLM) -> int:
        """Index of the layer, from 0.

        Raises:
            MethodError: the model has no such layer.
        """
        return decoder_layer(vlm, self.layer, "tam", unread=0)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Mean of the scored tokens' maps, from one forward; see `Method.attribute`."""
        maps = torch.stack(self._per_token(vlm, batch, target)).mean(0)
        return Attribution(maps, self._cautions(vlm, len(target)))

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """Each token's own map, from one forward; see `Method.attribute_tokens`."""
        return [Attribution(maps, self._cautions(vlm, len(maps))) for maps in self._per_token(vlm, batch, target)]

    def _cautions(self, vlm: VLM, count: int) -> dict[str, list[str]]:
        """What the maps of `count` pictures say about themselves: nothing reads image states after the last layers."""
        unread = self.source == "activation" and self.chosen_layer(vlm) >= max(vlm.key_layers)
        return {"caution": [UNREAD] * count} if unread else {}

    def _per_token(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Tensor]:
        """Filtered maps [batch, grid_h, grid_w] of the scored tokens."""
        chosen, kept = self.chosen_layer(vlm), list[Tensor]()

        def keep(layer: int, values: Tensor) -> None:
            if layer == chosen:
                kept.append(values if self.source == "activation" else values.mean(1))

        observer = {"states" if self.source == "activation" else "observer": keep}
        with torch.no_grad():
            vlm.trace(batch.tokens(vlm), batch.prompts, target, **observer)
            single = self._activation_map if self.source == "activation" else self._attention_map
            maps = [single(vlm, batch, target, kept[0], index) for index in target[0].scored]
        return [_filtered(vlm.on_cells(values), vlm.pictures) for values in maps]

    def _activation_map(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], states: Tensor, index: int
    ) -> Tensor:
        ids, allowed = context_words(vlm, batch.prompts, target, index)
        image = at_image(vlm, batch, states, 1)
        words = states[:, _positions(batch.prompts[0], ids.shape[1])]
        activation, relevance = (read_target(vlm, part, target, index).clamp_min(0) for part in (image, words))
        activation = self.core(activation, batch.image_ids, batch.seed).clamp_min(0)
        weights = relevance * allowed
        weights = weights / weights.sum(1, keepdim=True).clamp_min(TINY)
        context = (vlm.token_logits(image, ids).clamp_min(0) * weights[:, None]).sum(-1)
        scale = (activation * context).sum(1, keepdim=True) / context.square().sum(1, keepdim=True).clamp_min(TINY)
        return (activation - scale * context).clamp_min(0)

    def _attention_map(
        self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target], rows: Tensor, index: int
    ) -> Tensor:
        ids, allowed = context_words(vlm, batch.prompts, target, index)
        prompt = batch.prompts[0]
        activation = at_image(vlm, batch, rows[:, prompt.length - 1 + index]).double()
        before = [len(prompt.prefix_ids) - 1 + word for word in range(ids.shape[1])]
        activation = self.core(activation, batch.image_ids, batch.seed)
        context = at_image(vlm, batch, rows[:, before]).double() * allowed[:, :, None]
        left = [residual(a, c, self.ridge) for a, c in zip(activation, context, strict=True)]
        return torch.stack(left).clamp_min(0).float()


def residual(values: Tensor, context: Tensor, ridge: float) -> Tensor:
    """Residual of a map [N] after ridge regression on context maps [words, N]."""
    gram = context @ context.T
    used = (context != 0).any(1).sum().clamp_min(1)
    penalty = (ridge * gram.trace() / used).clamp_min(TINY)
    weights: Tensor = torch.linalg.solve(gram + penalty * torch.eye(len(gram)).to(gram), context @ values)
    return values - weights @ context


def context_words(vlm: VLM, prompts: Sequence[Prompt], target: Sequence[Target], index: int) -> tuple[Tensor, Tensor]:
    """Tokens between the image and an answer token, and which of them are context.

    Not context are special tokens, the start of the model's turn (all after the last special token of the prompt),
    blanks, and words that equal the explained one up to case and spaces.

    Args:
        vlm: the model.
        prompts: of equal length.
        target: one for each prompt.
        index: 0-based answer token that is explained.

    Returns:
        (int64 [batch, words], float32 [batch, words] of 0 and 1).
    """
    all_ids, all_allowed = [], []
    for prompt, goal in zip(prompts, target, strict=True):
        answer = goal.answer_ids[:index]
        ids = [*prompt.suffix_ids, *answer]
        marks = [place for place, token in enumerate(prompt.suffix_ids) if token in vlm.special_ids]
        head = range(marks[-1], len(prompt.suffix_ids)) if marks else range(0)
        own = explained_ids(vlm, goal, index)
        same = {"", *(text.strip().casefold() for text in vlm.decode(own))}
        texts = [text.strip().casefold() for text in vlm.decode(ids)]
        allowed = [
            place not in head and token not in vlm.special_ids and text not in same
            for place, (token, text) in enumerate(zip(ids, texts, strict=True))
        ]
        all_ids.append(ids)
        all_allowed.append(allowed)
    return torch.tensor(all_ids, device=vlm.device), torch.tensor(all_allowed, device=vlm.device).float()


def explained_ids(vlm: VLM, target: Target, index: int) -> tuple[int, ...]:
    """Id of the explained token; for a margin, all ids that mean the model's answer."""
    if target.kind == "tokens":
        return (target.answer_ids[index],)
    if target.kind == "letter":
        return target.letters[target.chosen]
    return vlm.yes_ids if target.sign > 0 else vlm.no_ids


def read_target(vlm: VLM, states: Tensor, target: Sequence[Target], index: int) -> Tensor:
    """Logit of the explained token, or signed margin, [batch, positions], from states [batch, positions, hidden]."""
    if target[0].kind == "tokens":
        ids = torch.tensor([[goal.answer_ids[index]] for goal in target], device=states.device)
        return vlm.token_logits(states, ids)[..., 0]
    if target[0].kind == "letter":
        return torch.cat([_letter_margin(vlm, row, goal) for row, goal in zip(states.split(1), target, strict=True)])
    ids = torch.tensor([*vlm.yes_ids, *vlm.no_ids], device=states.device).expand(len(target), -1)
    logits = vlm.token_logits(states, ids)
    signs = torch.tensor([goal.sign for goal in target], device=states.device)
    count = len(vlm.yes_ids)
    return signs[:, None] * (logits[..., :count].logsumexp(-1) - logits[..., count:].logsumexp(-1))


def _letter_margin(vlm: VLM, states: Tensor, target: Target) -> Tensor:
    """Margin of the chosen letter over the best other one [1, positions], from states [1, positions, hidden]."""
    ids = torch.tensor([[token for letter in target.letters for token in letter]], device=states.device)
    groups = vlm.token_logits(states, ids).split([len(letter) for letter in target.letters], -1)
    logits = [group.logsumexp(-1) for group in groups]
    own: Tensor = logits.pop(target.chosen)
    return own - torch.stack(logits).amax(0)


def _positions(prompt: Prompt, words: int) -> list[int]:
    """Positions at which the context words' relevance is read: their own, but p-1 for a generated word at p."""
    first, suffix = len(prompt.prefix_ids), len(prompt.suffix_ids)
    return [first + word - (word >= suffix) for word in range(words)]


def _filtered(maps: Tensor, pictures: int) -> Tensor:
    """`rank_gaussian` of each picture of a sheet."""
    return together(rank_gaussian(apart(maps[:, None], pictures)[:, 0])[:, None], pictures)[:, 0]


def rank_gaussian(maps: Tensor) -> Tensor:
    """Local rank-Gaussian filter: a Gaussian over the sorted values of each 3x3 window, centered on the median.

    σ = std / mean of the window (std 0: the median; mean 0: 0), reflect padding. The weights depend on ranks within the
    window; ranks within the whole map would order the zeros that ReLU leaves by their position.

    Args:
        maps: [batch, grid_h, grid_w], not negative; grid_h and grid_w at least 2.
    """
    padded = torch.nn.functional.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).sort(-1).values
    mean, std = windows.mean(-1, keepdim=True), windows.std(-1, correction=0, keepdim=True)
    sigma = std / mean.clamp_min(TINY)
    offsets = torch.arange(-4, 5, device=maps.device)
    weights = torch.exp(-offsets.square() / (2 * sigma.square()).clamp_min(TINY))
    filtered = (windows * weights).sum(-1) / weights.sum(-1)
    return torch.where(mean[..., 0] == 0, torch.zeros_like(filtered), filtered)
