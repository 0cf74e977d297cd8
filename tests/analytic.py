"""A model whose score is a known linear readout of the cells, so that every map and curve has a closed form."""

from dataclasses import replace

import numpy as np
import torch

from cxr_faith.vlm import VLM, Counts, PictureScores, Prompt, Reply, Target

CHANNELS = (0.5, -1.0, 2.0)


class LinearVLM(VLM):
    """Image token = a cell's channel means; logit = Σ over cells of weight x (channels · token) + bias.

    The margin is the logit. Token i of an answer has two candidates that differ by logit + i, so log p = log sigmoid.
    Each of its two layers hands the image tokens on as they are, and the head reads "yes" in a cell as channels ·
    token, "no" and all else as 0.

    Attributes:
        questions: question -> weights [grid_h, grid_w].
        bias: question -> added to its logit.
        reply: replaces fields of every answer.
        poison: tokens [batch, N, 3] -> bool [batch]; those pictures score NaN.
        limit: a batch with more pictures runs out of memory.
        attention: probabilities [heads, sequence, sequence] of both layers.
        combine: contributions [batch, N] of the cells to their share of the logit [batch]; their sum by default.
    """

    def __init__(self, questions, bias=None, cell=(4, 6)):
        grid = next(iter(questions.values())).shape
        super().__init__(
            grid=grid,
            image_size=(grid[0] * cell[0], grid[1] * cell[1]),
            layer_types=("sliding_attention", "full_attention"),
            yes_ids=(1,),
            no_ids=(2,),
            device=torch.device("cpu"),
            counts=Counts(),
        )
        self.questions = {q: torch.as_tensor(w, dtype=torch.float32) for q, w in questions.items()}
        self.bias = dict.fromkeys(questions, 0.0) | (bias or {})
        self.reply = {}
        self.poison = None
        self.limit = None
        self.attention = None
        self.combine = lambda contributions: contributions.sum(-1)

    def to(self, device):
        return self

    def normalize(self, images):
        return images.float() / 127.5 - 1

    def denormalize(self, pixels):
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def encode(self, pixels):
        if self.limit is not None and len(pixels) > self.limit:
            raise torch.OutOfMemoryError(f"{len(pixels)} pictures")
        self.counts.encode += len(pixels)
        (rows, columns), (height, width) = self.grid, self.image_size
        cells = pixels.reshape(len(pixels), 3, rows, height // rows, columns, width // columns)
        return cells.mean((3, 5)).flatten(2).transpose(1, 2)

    def prefill(self, tokens):
        self.counts.prefill += len(tokens)
        return tokens

    def prompt(self, question, options=0, turns=()):
        index = list(self.questions).index(question)
        return Prompt(question, (0,) * (self.n_cells + 1), (10 + index,), 1)

    def logit(self, tokens, prompt):
        weights = self.questions[prompt.question].flatten()
        cells = (tokens * torch.tensor(CHANNELS)).sum(-1)
        return self.combine(cells * weights) + self.bias[prompt.question]

    def answer(self, prefix, prompt, max_new_tokens):
        logit = float(self.logit(prefix, prompt)[0])
        token = 1 if logit >= 0 else 2
        text = "yes" if logit >= 0 else "no"
        return replace(Reply((token,), (0,), text, logit, 1.0, True), **self.reply)

    def score(self, prefix, prompt, target):
        self.counts.score += len(prefix)
        logit = self.logit(prefix, prompt).double()
        if self.poison is not None:
            logit = torch.where(self.poison(prefix), torch.nan, logit)
        if target.kind == "margin":
            s = target.sign * logit
            return PictureScores(s, s.sigmoid(), s)
        rows = torch.stack([logit + index for index in target.scored], dim=1)
        log_p = torch.nn.functional.logsigmoid(rows)
        return PictureScores(rows.mean(1), log_p.exp().mean(1), rows.amin(1), log_p.mean(1))

    def trace(self, tokens, prompts, targets, observer=None, states=None):
        self.counts.trace += len(tokens)
        sequence = torch.nn.functional.pad(tokens, (0, 0, 1, 1 + len(targets[0].forced_ids)))
        for layer in range(2):
            if observer is not None and self.attention is not None:
                observer(layer, self.attention.expand(len(tokens), -1, -1, -1))
            if states is not None:
                states(layer, sequence)
        cells = sequence[:, 1 : 1 + self.n_cells]
        logits = [self.logit(t[None], p)[0] for t, p in zip(cells, prompts, strict=True)]
        rows = []
        for logit, target in zip(logits, targets, strict=True):
            if target.kind == "margin":
                rows.append((target.sign * logit)[None])
            else:
                rows.append(torch.stack([logit + i for i in target.scored]))
        return torch.stack(rows)

    def token_logits(self, states, token_ids):
        yes = (states * torch.tensor(CHANNELS)).sum(-1)
        return yes[..., None] * (token_ids == 1)[:, None]

    def decode(self, token_ids):
        return [f"t{token}" for token in token_ids]

    def identity(self):
        return {"source": "analytic"}

    def contributions(self, original, removed, question, sign=1):
        """What each cell adds to s when it is original: the true attribution, float64 [grid_h, grid_w]."""
        height, width = (side // cells for side, cells in zip(self.image_size, self.grid, strict=True))
        result = np.zeros(self.grid)
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                block = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
                for channel, strength in enumerate(CHANNELS):
                    change = original[channel].double().numpy()[block] - removed[channel].double().numpy()[block]
                    result[row, column] += strength * change.mean()
        return sign * result * self.questions[question].double().numpy()

    def curve(self, contributions, s_original, order, k, mode):
        """Closed-form curve: the score loses what has been removed."""
        added = np.concatenate([[0], np.cumsum(contributions.ravel()[np.asarray(order)])])[np.asarray(k)]
        return s_original - added if mode == "deletion" else s_original - contributions.sum() + added


def picture(vlm, seed=0):
    """Pixel values [3, H, W] of noise on a slope, so that neither blur nor mean leaves a cell as it was."""
    height, width = vlm.image_size
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(-1, 1, height)[:, None] * torch.linspace(0, 1, width)
    return slope + 0.5 * torch.randn(3, height, width, generator=generator)


MARGIN = Target("margin")


def one_cell(question, grid=(5, 6)):
    """(A model that reads a single cell, that cell)."""
    weights = np.zeros(grid)
    weights[3, 4] = 1.0
    return LinearVLM({question: weights}), 3 * grid[1] + 4


def blind(question, grid=(5, 6), bias=2.0):
    """A model that ignores the picture."""
    return LinearVLM({question: np.zeros(grid)}, bias={question: bias})


def redundant(question, grid=(5, 6)):
    """(A model that says yes while either of two neighboring cells is bright, those cells)."""
    weights, cells = np.zeros(grid), (2 * grid[1] + 3, 2 * grid[1] + 4)
    weights.flat[list(cells)] = 1.0
    vlm = LinearVLM({question: weights}, bias={question: -0.5})
    vlm.combine = lambda contributions: contributions.amax(-1)
    return vlm, cells


class AttendingVLM(LinearVLM):
    """The same model, whose margin takes the cells' contributions through its last layer's attention.

    In `trace` the contribution of a cell counts N times the attention that the last position pays to it, heads
    averaged; `score` has no attention. The tower is the identity.
    """

    def trace(self, tokens, prompts, targets, observer=None, states=None):
        # In a real model attention depends on the tokens: gradients pass through it on their way to them.
        layers = [self.attention.expand(len(tokens), -1, -1, -1) + 0 * tokens.sum() for _ in self.layer_types]
        rows = iter(layers[-1].mean(1)[:, -1, 1 : 1 + self.n_cells, None] * self.n_cells)
        plain, show = self.logit, None if observer is None else lambda layer, _: observer(layer, layers[layer])
        self.logit = lambda cells, prompt: plain(cells * next(rows), prompt)
        try:
            return super().trace(tokens, prompts, targets, show, states)
        finally:
            del self.logit

    def tower_stream(self, pixels, layer):
        return self.encode(pixels)

    def encode_stream(self, stream, layer):
        return stream

    def tower_identity(self):
        return "identity"
