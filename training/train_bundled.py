"""Train the small Gemma-3 that ships with the package, from scratch.

    python training/train_bundled.py --out cxr_faith/vlm/bundled

About two hours on two CPU cores; a GPU is used when there is one. Expected: `evaluate_bundled.py`
prints at least 95 % on held-out pictures.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from architecture import GRID, IMAGE_SIZE, build_model
from lessons import Lesson, chest_lessons, graded_lesson, lesion_cells, shape_lessons, yes_no_question
from numpy.typing import NDArray
from orders import own_orders, yes_no_margin
from packing import Pack, Packer, forward
from pool import Chunk, build_pool
from removal import (
    LESION_ORDERED,
    SUBSTRATE_SHARES,
    SUBSTRATES,
    blur_matrix,
    draw_kept,
    few_or_many,
    keep_most,
    remove,
)
from tokenizer import build_processor, build_tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from cxr_faith.data.sources.phantom_questions import SIDED, SIDES
from cxr_faith.vlm.yes_no import NO_WORDS, YES_WORDS, single_tokens

CHANNELS = [*(f"{f}/{s}" for f in SIDED for s in SIDES), "cardiomegaly"]
SHAPE_SHARE = 0.12
TOWER_STEPS = 100
MARGIN = 7.0
OWN_ROOM = 40
TRUTH_ORDERED = 0.35
Orders = Callable[[Tensor, Tensor, Pack, np.random.Generator], NDArray[np.float64]]


class Feed:
    """Endless training batches from a pool of pictures.

    Args:
        chests: Rendered chest pictures.
        shapes: Rendered color and shape pictures.
        packer: Packs the questions.
        batch: Pictures per batch.
        seed: Seed of everything drawn here.
    """

    def __init__(self, chests: list[Chunk], shapes: list[Chunk], packer: Packer, batch: int, seed: int) -> None:
        self.images = np.concatenate([c.images for c in chests])
        self.areas = [a for c in chests for a in c.areas]
        self.specs = [s for c in chests for s in c.specs]
        self.shape_images = np.concatenate([c.images for c in shapes])
        self.shape_areas = [a for c in shapes for a in c.areas]
        self.shape_specs = [s for c in shapes for s in c.specs]
        self.packer, self.batch = packer, batch
        self.blur = blur_matrix()
        self.restart(seed, sides=False)

    def restart(self, seed: int, sides: bool, graded: bool = False) -> None:
        """Start again from a seed; `sides` and `graded` are those of `chest_lessons`."""
        self.sides, self.graded = sides, graded
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.queue: list[int] = []

    def _next_chest(self) -> int:
        if not self.queue:
            self.queue = self.rng.permutation(len(self.specs)).tolist()
        return self.queue.pop()

    def _kept(self, areas: dict[str, np.ndarray]) -> np.ndarray:
        """Cells to keep, sometimes ordered around a lesion of this picture or, as a decoy, of another one."""
        names = [name for name in areas if name != "heart"]
        if not names or self.rng.random() < 0.25:
            areas = self.areas[self.rng.integers(len(self.areas))]
            names = list(areas)
        ordered = LESION_ORDERED * (2 if self.graded else 1)
        return draw_kept(self.rng, areas[names[self.rng.integers(len(names))]], ordered)

    def _own(self, order: Orders) -> tuple[list[int], list[NDArray[np.bool_]], list[Lesson]]:
        """Half a batch: pictures, the cells each keeps in the model's or the true order, and a question about each."""
        pictures = [self._next_chest() for _ in range(self.batch // 2)]
        questions = [yes_no_question(self.specs[i], self.rng) for i in pictures]
        pixels = torch.from_numpy(self.images[pictures]).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1.0
        pack = self.packer.pack([[(q.text, "yes", 1.0)] for q in questions], OWN_ROOM)
        fields = order(pixels, self.blur @ pixels @ self.blur.T, pack, self.rng)
        kept, lessons = [], []
        for i, question, own in zip(pictures, questions, fields, strict=True):
            first_in, truth = self.rng.random() < 0.5, lesion_cells(question, self.areas[i])
            by_truth = truth is not None and self.rng.random() < TRUTH_ORDERED
            field = truth + 0.01 * self.rng.random((GRID, GRID)) if by_truth and truth is not None else own
            kept.append(keep_most(field if first_in else -field, few_or_many(self.rng, first_in)))
            lessons.append(graded_lesson(question, self.specs[i], self.areas[i], kept[-1]))
        return pictures, kept, lessons

    def draw(self, order: Orders | None = None) -> tuple[Tensor, Pack, Tensor, Tensor]:
        """A batch: pixels in model space, questions, dense targets [batch, N, channels] and their weight [batch].

        `order` ranks the cells of intact pictures; if it is given, half of the batch loses cells in that order.
        """
        pixels = np.empty((self.batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        kept = np.empty((self.batch, GRID, GRID), bool)
        dense = np.zeros((self.batch, GRID, GRID, len(CHANNELS)), np.float32)
        is_chest = self.rng.random(self.batch) >= SHAPE_SHARE
        kinds = self.rng.choice(len(SUBSTRATES), self.batch, p=SUBSTRATE_SHARES)
        own = self._own(order) if order else ([], [], [])
        is_chest[: len(own[0])] = True
        kinds[: len(own[0])] = SUBSTRATES.index("blur")
        lessons: list[list[Lesson]] = []
        for b in range(self.batch):
            if is_chest[b]:
                i = own[0][b] if b < len(own[0]) else self._next_chest()
                pixels[b] = self.images[i][..., None]
                kept[b] = own[1][b] if b < len(own[0]) else self._kept(self.areas[i])
                for c, name in enumerate(CHANNELS):
                    if name in self.areas[i]:
                        dense[b, ..., c] = self.areas[i][name] * kept[b]
                asked = chest_lessons(self.specs[i], self.areas[i], kept[b], self.rng, self.sides, self.graded)
                lessons.append([own[2][b], *asked] if b < len(own[0]) else asked)
            else:
                i = int(self.rng.integers(len(self.shape_specs)))
                pixels[b] = self.shape_images[i]
                kept[b] = self._kept(self.shape_areas[i])
                lessons.append(shape_lessons(self.shape_specs[i], self.shape_areas[i], kept[b], self.rng))
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x = remove(x, torch.from_numpy(kept), kinds, self.blur, self.generator)
        return x, self.packer.pack(lessons), torch.from_numpy(dense).flatten(1, 2), torch.from_numpy(is_chest).float()


def answer_loss(model: Gemma3ForConditionalGeneration, hidden: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy of the replies, and the share of reply tokens that are right."""
    at = pack.target >= 0
    logits = model.lm_head(hidden[at]).float()
    target, weight = pack.target[at], pack.weight[at]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    content = weight == weight.max()
    return loss, (logits.argmax(-1) == target)[content].float().mean()


def even_margins(model: Gemma3ForConditionalGeneration, hidden: Tensor, pack: Pack, ids: tuple[Tensor, ...]) -> Tensor:
    """How far the yes/no margins are from ±MARGIN logits, squared and relative.

    With cross entropy alone, the size of a margin depends on the rest of the picture. An answer that a lesion decides
    should be as certain with the lesion alone as with the whole picture, or curves keep moving after all evidence is
    removed.
    """
    asked = torch.isin(pack.target, torch.cat(ids))
    margin = yes_no_margin(hidden[asked], model.lm_head.weight, ids)
    word = torch.where(torch.isin(pack.target[asked], ids[0]), 1.0, -1.0)
    wanted = torch.where(pack.margin[asked].isnan(), word, pack.margin[asked])
    return (margin / MARGIN - wanted).square().mean()


def dense_loss(head: nn.Linear, tower: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Loss of predicting each cell's lesions from the tower's output; lesions are rare, so their cells weigh more."""
    more = target.new_tensor(3.0)
    loss = F.binary_cross_entropy_with_logits(head(tower).float(), target, reduction="none", pos_weight=more)
    return (loss.mean((1, 2)) * weight).sum() / weight.sum().clamp_min(1) * len(CHANNELS)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a short linear rise, then a cosine to almost zero."""
    warm = max(1, round(0.06 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def save(model: Gemma3ForConditionalGeneration, processor: Gemma3Processor, folder: Path) -> None:
    """Save model and processor; each file is replaced atomically."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)
        os.replace(path, folder / path.name)
    fresh.rmdir()


def cycle(
    model: Gemma3ForConditionalGeneration,
    processor: Gemma3Processor,
    feed: Feed,
    args: argparse.Namespace,
    steps: int,
    peak: float,
    dense: float,
    even: float = 0.0,
    own: bool = False,
) -> None:
    """One cycle of training.

    Args:
        model: The model, on its device.
        processor: Saved with every checkpoint.
        feed: Gives the batches.
        args: The command line.
        steps: Number of batches.
        peak: Highest learning rate.
        dense: Weight of the per-patch lesion loss; with it the tower learns alone for the first steps.
        even: Weight of `even_margins`.
        own: Remove the cells of half of the pictures in the model's own order.
    """
    device = model.device
    words = (YES_WORDS, NO_WORDS)
    ids = tuple(torch.tensor(single_tokens(feed.packer.tokenizer, w), device=device) for w in words)
    head = nn.Linear(model.config.vision_config.hidden_size, len(CHANNELS)).to(device)
    nn.init.constant_(head.bias, -4.0)
    parameters = [*model.parameters(), *(head.parameters() if dense else ())]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))

    def order(pixels: Tensor, substrate: Tensor, pack: Pack, rng: np.random.Generator) -> NDArray[np.float64]:
        pack = Pack(**{name: value.to(device) for name, value in vars(pack).items()})
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            return own_orders(model, feed.packer, pixels.to(device), substrate.to(device), pack, ids, rng)

    started, marks = time.time(), []
    saved = started
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        pixels, pack, areas, is_chest = feed.draw(order if own else None)
        pixels, areas, is_chest = pixels.to(device), areas.to(device), is_chest.to(device)
        pack = Pack(**{name: value.to(device) for name, value in vars(pack).items()})
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            if dense and step < TOWER_STEPS:
                tower = model.model.vision_tower(pixel_values=pixels).last_hidden_state
                loss, right = 2.0 * dense_loss(head, tower, areas, is_chest), torch.zeros(())
            else:
                hidden, tower = forward(model, feed.packer, pixels, pack)
                loss, right = answer_loss(model, hidden, pack)
                if even:
                    loss = loss + even * even_margins(model, hidden, pack, ids)
                if dense:
                    loss = loss + dense * dense_loss(head, tower, areas, is_chest)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        marks.append((loss.item(), right.item()))
        if step % 25 == 24:
            mean, pace = np.mean(marks[-25:], 0), (time.time() - started) / (step + 1)
            print(f"step {step + 1} loss {mean[0]:.4f} right {mean[1]:.4f} s/step {pace:.3f}", flush=True)
        if time.time() - saved > args.save_every:
            save(model, processor, args.work / "checkpoint")
            saved = time.time()


def train(args: argparse.Namespace) -> None:
    """Render the pictures, train the model in five cycles, and save it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer, IMAGE_SIZE, GRID * GRID)
    model = build_model(tokenizer, args.seed)
    if args.start:
        model = Gemma3ForConditionalGeneration.from_pretrained(args.start, local_files_only=True)
    model = model.to(device).train()
    if device.type == "cpu":
        # On a CPU the backward pass of fused attention is by far the slowest part; eager attention takes a fifth of it.
        model.set_attn_implementation("eager")
    if args.compile:
        torch._dynamo.config.automatic_dynamic_shapes = False  # whole and half batches get a graph each
        for layer in (*model.model.language_model.layers, *model.model.vision_tower.encoder.layers):
            layer.compile()
    pool = build_pool(args.work / "pool", args.pictures, args.pictures // 8, args.workers)
    feed = Feed(*pool, Packer(tokenizer, GRID**2), args.batch, args.seed)
    if not args.start:
        cycle(model, processor, feed, args, args.steps, args.lr, args.dense)
        save(model, processor, args.work / "first_cycle")
    feed.restart(args.seed + 1, sides=True)
    cycle(model, processor, feed, args, args.refine, args.lr * 0.55, 0.0)
    save(model, processor, args.work / "second_cycle")
    feed.restart(args.seed + 2, sides=True)
    cycle(model, processor, feed, args, args.even, args.lr * 0.4, 0.0, even=1.0)
    save(model, processor, args.work / "third_cycle")
    feed.restart(args.seed + 3, sides=True, graded=True)
    cycle(model, processor, feed, args, args.graded, args.lr * 0.4, 0.0, even=1.5)
    save(model, processor, args.work / "fourth_cycle")
    feed.restart(args.seed + 4, sides=True, graded=True)
    cycle(model, processor, feed, args, args.own, args.lr * 0.4, 0.0, even=6.0, own=True)
    save(model.cpu().eval(), processor, args.out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--work", type=Path, default=Path("runs/training"), help="folder for pictures and checkpoints")
    parser.add_argument("--steps", type=int, default=2000, help="batches of the first cycle")
    parser.add_argument("--refine", type=int, default=700, help="batches of the second cycle")
    parser.add_argument("--even", type=int, default=260, help="batches of the third cycle, which evens the margins")
    parser.add_argument("--graded", type=int, default=540, help="batches of the fourth: margins grow with what is left")
    parser.add_argument("--own", type=int, default=1420, help="batches of the fifth: cells go in the model's own order")
    parser.add_argument("--start", type=Path, help="a saved model to start the second cycle from")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--dense", type=float, default=0.5, help="weight of the per-patch lesion loss")
    parser.add_argument("--pictures", type=int, default=16384, help="chest pictures in the pool")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save_every", type=float, default=240.0, help="seconds between checkpoints")
    parser.add_argument("--bf16", action="store_true", help="run the forward in bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the layers (a quarter faster after 90 s)")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
