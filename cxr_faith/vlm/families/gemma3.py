"""Gemma-3 and MedGemma: the one file that knows Gemma's token layout.

A prompt is `<bos> … <start_of_image> image tokens | <end_of_image> … question … <start_of_turn>model`; the bar is
where the prefix ends. Image tokens attend to each other in both directions (only when `token_type_ids` is passed) and
never see the question, so the cache up to the bar depends on the picture alone.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache, Gemma3ForConditionalGeneration

from cxr_faith.vlm.base import VLM, ModelError, Observer, PictureScores, Prompt, PromptError, Reply, Target
from cxr_faith.vlm.capture import observed, observed_states
from cxr_faith.vlm.checkpoint import load
from cxr_faith.vlm.head import Head, whole_vectors
from cxr_faith.vlm.prefix_cache import FillingCache, PrefixCache, PrefixComplete

YES_WORDS = ("yes", "Yes", "YES")
NO_WORDS = ("no", "No", "NO")


class Gemma3VLM(VLM):
    """A `Gemma3ForConditionalGeneration` and its processor, frozen, in evaluation mode.

    Attributes:
        shortcuts: leave out work that changes nothing: attention masks are made once for each length rather than for
            each picture and pass, the last layer of a prefix ends with its keys and values, and pictures can be put
            together from patch embeddings. Off, every pass is transformers' own; the numbers are the same bits.
    """

    shortcuts: bool = True

    def __init__(
        self,
        model: Gemma3ForConditionalGeneration,
        processor: Any,
        prompt_template: str = "{question}",
        source: str = "",
    ) -> None:
        """Check that model and processor fit together.

        Args:
            model: any Gemma-3 with a vision tower.
            processor: its `Gemma3Processor`.
            prompt_template: how a question is put to the model; must contain `{question}`.
            source: the folder or hub id that the model came from, for the run's provenance.

        Raises:
            ModelError: the two do not fit, or yes and no are not single tokens.
        """
        if "{question}" not in prompt_template:
            raise ModelError(f"prompt_template must contain '{{question}}', got {prompt_template!r}")
        config: Any = model.config
        text_config = config.get_text_config()
        side = int(config.mm_tokens_per_image**0.5)
        size = processor.image_processor.size
        tower_side = config.vision_config.image_size
        if (size["height"], size["width"]) != (tower_side, tower_side):
            made = f"{size['height']}x{size['width']}"
            raise ModelError(f"the processor makes {made} px pictures, the tower wants {tower_side} px squares")
        if getattr(processor.image_processor, "do_pan_and_scan", None):
            raise ModelError("pan-and-scan adds image blocks that a map cannot show: set do_pan_and_scan to false")
        if processor.image_seq_length != side * side:
            raise ModelError(f"processor writes {processor.image_seq_length} image tokens, the model has {side * side}")
        super().__init__(
            grid=(side, side),
            image_size=(tower_side, tower_side),
            layer_types=tuple(text_config.layer_types),
            yes_ids=single_tokens(processor.tokenizer, YES_WORDS),
            no_ids=single_tokens(processor.tokenizer, NO_WORDS),
            device=model.device,
            special_ids=frozenset(id for id, t in processor.tokenizer.added_tokens_decoder.items() if t.special),
        )
        if set(self.yes_ids) & set(self.no_ids):
            raise ModelError("the tokenizer maps a yes and a no to the same token id")
        self.model: Any = model.eval().requires_grad_(False)
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.prompt_template, self.source = prompt_template, source
        self._decoder: Any = model.model.language_model
        self._head = Head(self._decoder.norm, model.lm_head)
        self._attention_configs = list({id(c): c for c in (text_config, self._decoder.config)}.values())
        self._control_tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        self._stops = {self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids("<end_of_turn>")}
        mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self._prompt = lru_cache(maxsize=4096)(self._tokenize)
        self._masks = lru_cache(maxsize=256)(self._make_masks)
        self._ids = lru_cache(maxsize=4096)(self._make_ids)
        # transformers 5.17 keeps the tower's layers one level further in.
        self._tower: Any = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        prompt_template: str = "{question}",
        revision: str | None = None,
    ) -> "Gemma3VLM":
        """Load from a local folder or a hub id; safetensors only, no remote code.

        Args:
            path: folder with `config.json`, or a hub id such as `google/medgemma-4b-it`.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu. float16 overflows in Gemma 3 and is refused.
            prompt_template: how a question is put to the model.
            revision: hub revision.

        Raises:
            ModelError: the folder lacks weights or a processor, or holds another kind of model.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        model, processor = load(path, dtype, revision)
        return cls(model.to(device), processor, prompt_template, str(path))

    def to(self, device: torch.device | str) -> "Gemma3VLM":
        """Move the model; returns itself."""
        self.model.to(device)
        self.device = self.model.device
        self._masks.cache_clear()
        self._ids.cache_clear()
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """Pictures uint8 [batch, 3, H, W] to the float32 pixel values that the model gets."""
        return (images.to(self.device).float() / 255 - self._mean.to(self.device)) / self._std.to(self.device)

    def denormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalize`, rounded to uint8."""
        values = pixels * self._std.to(pixels.device) + self._mean.to(pixels.device)
        return (values * 255).round().clamp(0, 255).to(torch.uint8)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, N, hidden]."""
        self.counts.embed += len(pixels)
        self.counts.encode += len(pixels)
        tower, projector = self.model.model.vision_tower, self.model.model.multi_modal_projector
        hidden = tower(pixel_values=pixels.to(self.model.dtype)).last_hidden_state
        tokens: Tensor = projector(hidden)
        return tokens

    def embed(self, pixels: Tensor) -> Tensor | None:
        """Patch embeddings with their positions [batch, rows, columns, channels]; see `VLM.embed`."""
        if not self.shortcuts:
            return None
        self.counts.embed += len(pixels)
        side = self.image_size[0] // self.model.config.vision_config.patch_size
        embedded: Tensor = self._tower.embeddings(pixels.to(self.model.dtype)).unflatten(1, (side, side))
        return embedded

    def encode_embedded(self, embedded: Tensor) -> Tensor:
        """The rest of the vision tower, and the projector."""
        self.counts.encode += len(embedded)
        hidden = self._tower.encoder(inputs_embeds=embedded.flatten(1, 2)).last_hidden_state
        tokens: Tensor = self.model.model.multi_modal_projector(self._tower.post_layernorm(hidden))
        return tokens

    def tower_hidden(self, pixels: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Image tokens, and the tower's residual stream after a layer; see `VLM.tower_hidden`."""
        layers = self._tower.encoder.layers
        if not 0 <= layer < len(layers):
            raise ModelError(f"no vision tower layer {layer}: the tower has {len(layers)}, counted from 0")
        seen: list[Tensor] = []

        def cut(module: torch.nn.Module, args: Any, output: Tensor) -> Tensor:
            seen.append(output.detach().requires_grad_(torch.is_grad_enabled()))
            return seen[0]

        handle = layers[layer].register_forward_hook(cut)
        try:
            return self.encode(pixels), seen[0]
        finally:
            handle.remove()

    def tower_identity(self) -> str:
        """Hash of the vision tower's weights; see `VLM.tower_identity`."""
        digest = hashlib.blake2b(digest_size=16)
        for name, weight in sorted(self._tower.state_dict().items()):
            digest.update(name.encode())
            # Both dtypes that a model can be loaded in agree in bfloat16.
            digest.update(weight.detach().cpu().bfloat16().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def prefill(self, tokens: Tensor) -> PrefixCache:
        """Image tokens [batch, N, hidden] to the decoder's cache up to the end of the image."""
        self.counts.prefill += len(tokens)
        prompt = self.prompt("")
        embedded = self._embed(tokens, [prompt.prefix_ids] * len(tokens), prompt.image_start)
        if not self.shortcuts:
            cache = DynamicCache()
            self._run(embedded, prompt, cache)
            return PrefixCache(cache)
        filling = FillingCache(len(self.layer_types))
        masks = self._masks(0, embedded.shape[1], prompt.image_start)
        try:
            self.model.model(inputs_embeds=embedded, attention_mask=masks, past_key_values=filling, use_cache=True)
        except PrefixComplete:
            pass
        return PrefixCache(filling)

    def prompt(self, question: str) -> Prompt:
        """Tokenize a question with the chat template; one BOS and one contiguous image block are checked.

        Raises:
            PromptError: the question spells a control token.
            ModelError: the template does not give one BOS and one block of image tokens.
        """
        return self._prompt(question)

    def answer(self, prefix: PrefixCache, prompt: Prompt, max_new_tokens: int) -> Reply:
        """Greedy answer for a prefix of one picture."""
        self.counts.score += 1
        cache = prefix.growing()
        logits = self._head.logits(self._extend(cache, prompt.suffix_ids, batch=1)[:, -1])[0]
        log_p = logits.log_softmax(dim=-1)
        yes, no = (torch.tensor(ids, device=logits.device) for ids in (self.yes_ids, self.no_ids))
        first, ids = int(logits.argmax()), list[int]()
        token = first
        while token not in self._stops and len(ids) < max_new_tokens:
            ids.append(token)
            if len(ids) < max_new_tokens:
                token = int(self._head.logits(self._extend(cache, (token,), batch=1)[:, -1])[0].argmax())
        content = tuple(i for i, token in enumerate(ids) if token not in self.special_ids)
        return Reply(
            token_ids=tuple(ids),
            content=content,
            text=self.tokenizer.decode([ids[i] for i in content]).strip(),
            margin=float(logits[yes].logsumexp(0) - logits[no].logsumexp(0)),
            yes_no_mass=float(log_p[torch.cat([yes, no])].exp().sum()),
            opens_yes_no=first in self.yes_ids or first in self.no_ids,
        )

    def score(self, prefix: PrefixCache, prompt: Prompt, target: Target) -> PictureScores:
        """Scores of every picture of a prefix under one question."""
        batch = prefix.layers[0].keys.shape[0]
        self.counts.score += batch
        ids = prompt.suffix_ids + target.forced_ids
        hidden = self._extend(prefix, ids, batch)
        read = [position - len(prompt.prefix_ids) for position in target.read_positions(prompt)]
        if target.kind == "margin":
            s = (target.sign * self._margin(hidden[:, read[0]])).double()
            return PictureScores(s, whole_vectors(torch.sigmoid, s), s)
        log_p, standing = self._token_scores(hidden[:, read], [target] * batch)
        probability = whole_vectors(torch.exp, log_p.double())
        return PictureScores(log_p.double().mean(1), probability.mean(1), standing.double().amin(1))

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
        ids = [p.prefix_ids + p.suffix_ids + t.forced_ids for p, t in zip(prompts, targets, strict=True)]
        shapes = {(len(i), t.kind, t.scored) for i, t in zip(ids, targets, strict=True)}
        if len(shapes) != 1:
            raise ValueError("prompts of one trace must be of equal length and targets of equal shape")
        with observed(self._attention_configs, observer), observed_states(self._decoder.layers, states):
            hidden = self._run(self._embed(tokens, ids, prompts[0].image_start), prompts[0], None)
        read = hidden[:, targets[0].read_positions(prompts[0])]
        if targets[0].kind == "margin":
            signs = torch.tensor([t.sign for t in targets], device=hidden.device)
            return (self._margin(read[:, 0]) * signs)[:, None]
        return self._token_scores(read, targets)[0]

    def token_logits(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Logits of some tokens at every position; see `VLM.token_logits`."""
        return self._head.token_logits(states, token_ids)

    def decode(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return [self.tokenizer.decode([token]) for token in token_ids]

    def identity(self) -> dict[str, str]:
        """Source, revision, dtype and a hash of all weights."""
        digest = hashlib.blake2b(digest_size=16)
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        revision = getattr(self.model.config, "_commit_hash", None) or ""
        return {
            "source": self.source,
            "revision": revision,
            "weights": digest.hexdigest(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "prompt_template": self.prompt_template,
        }

    def _tokenize(self, question: str) -> Prompt:
        # Not str.format: a template or a question may hold other braces.
        text = self.prompt_template.replace("{question}", question)
        control = next((token for token in self._control_tokens if token in question), None)
        if control is not None:
            raise PromptError(f"the question spells the control token {control}")
        blank = Image.new("RGB", (self.image_size[1], self.image_size[0]))
        content = [{"type": "image", "image": blank}, {"type": "text", "text": text}]
        encoded = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids: list[int] = encoded["input_ids"][0].tolist()
        image_id = self.model.config.image_token_id
        start, count = (ids.index(image_id) if image_id in ids else 0), ids.count(image_id)
        end = start + self.n_cells
        if count != self.n_cells or any(token != image_id for token in ids[start:end]):
            raise ModelError(f"the chat template gives {count} image tokens, not one block of {self.n_cells}")
        if ids.count(self.tokenizer.bos_token_id) != 1:
            raise ModelError(f"the chat template gives {ids.count(self.tokenizer.bos_token_id)} BOS tokens, not one")
        return Prompt(question, tuple(ids[:end]), tuple(ids[end:]), start)

    def _embed(self, tokens: Tensor, ids: Sequence[Sequence[int]], start: int) -> Tensor:
        """Input embeddings [batch, sequence, hidden] with the image tokens in place."""
        embedded = self._decoder.embed_tokens(torch.cat([self._ids(tuple(row)) for row in ids]))
        tokens = tokens.to(embedded.dtype)
        return torch.cat([embedded[:, :start], tokens, embedded[:, start + tokens.shape[1] :]], dim=1)

    def _run(self, embedded: Tensor, prompt: Prompt, cache: DynamicCache | None) -> Tensor:
        """Hidden states before the final norm, of a sequence that holds the image."""
        types = torch.zeros(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        types[:, prompt.image_start : prompt.image_start + self.n_cells] = 1
        return self._hidden(
            inputs_embeds=embedded, token_type_ids=types, past_key_values=cache, use_cache=cache is not None
        )

    def _extend(self, cache: DynamicCache, ids: tuple[int, ...], batch: int) -> Tensor:
        """Hidden states before the final norm, of text that follows a cache."""
        embedded = self._decoder.embed_tokens(self._ids(ids)).expand(batch, -1, -1)
        masks = self._masks(cache.get_seq_length(), len(ids), None) if self.shortcuts else None
        return self._hidden(inputs_embeds=embedded, attention_mask=masks, past_key_values=cache, use_cache=True)

    def _hidden(self, **inputs: Any) -> Tensor:
        """Hidden states before the final norm. The hook goes with the run: one that stays would keep a graph alive."""
        kept: list[Tensor] = []
        hook = self._decoder.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        try:
            self.model.model(**inputs)
        finally:
            hook.remove()
        return kept[0]

    def _make_ids(self, ids: tuple[int, ...]) -> Tensor:
        """Token ids [1, length] on the device, kept there: a copy from the host would wait for all work before it.

        The image token, which may lie outside the vocabulary, is replaced by 0; its embedding is never used.
        """
        tensor = torch.tensor([ids], device=self.device)
        return tensor.masked_fill(tensor == self.model.config.image_token_id, 0)

    def _make_masks(self, seen: int, new: int, image_start: int | None) -> dict[str, Tensor]:
        """Which of the `seen + new` positions each of the new ones attends to, [1, 1, new, seen + new] by layer type.

        One mask serves every picture of a batch, since all have their image at the same place.
        """
        query = torch.arange(seen, seen + new, device=self.device)[:, None]
        key = torch.arange(seen + new, device=self.device)[None]
        attends = key <= query
        if image_start is not None:
            in_image = (key >= image_start) & (key < image_start + self.n_cells)
            attends = attends | (in_image & (query >= image_start) & (query < image_start + self.n_cells))
        window = key > query - self.model.config.get_text_config().sliding_window
        return {"full_attention": attends[None, None], "sliding_attention": (attends & window)[None, None]}

    def _margin(self, hidden: Tensor) -> Tensor:
        """Margin of yes over no, [batch], in float32."""
        return self._head.margin(hidden, self._ids((*self.yes_ids, *self.no_ids))[0], len(self.yes_ids))

    def _token_scores(self, hidden: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and margins over the best other token, each [batch, n], of the scored tokens."""
        return self._head.token_scores(
            hidden, torch.cat([self._ids(tuple(t.answer_ids[i] for i in t.scored)) for t in targets])
        )


def single_tokens(tokenizer: Any, words: Sequence[str]) -> tuple[int, ...]:
    """Ids of the words, bare and with a leading space, that the tokenizer writes as one token."""
    encoded = [tokenizer.encode(space + word, add_special_tokens=False) for word in words for space in ("", " ")]
    ids = sorted({ids[0] for ids in encoded if len(ids) == 1})
    if not ids:
        raise ModelError(f"the tokenizer has no single token for any of {', '.join(words)}")
    return tuple(ids)
