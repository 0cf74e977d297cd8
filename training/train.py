"""Train a small model of a family from scratch, as a regime says.

    python training/train.py --regime random --out training/checkpoints/random-0 --bf16 --compile
    python training/train.py --family llava --regime random --out training/checkpoints/llava-0 --bf16 --compile

Two cores need about 1.5 s a batch; a GPU is used when there is one. The same command goes on after an interruption.
Expected: `evaluate_bundled.py` prints at least 95 % on held-out pictures, for `eighty` about 80 %, and for `shortcut`,
whose answers follow the marker and not the lesion, about 50 %.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES
from feed import CHANNELS, Feed, Orders
from losses import accuracy, answer_loss, dense_loss, even_margins
from numpy.typing import NDArray
from orders import own_orders
from packing import Pack, Packer, forward
from pool import build_pool, chest_chunk
from regimes import REGIMES, Cycle
from state import State
from tokenizer import build_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cxr_faith.vlm.yes_no import NO_WORDS, YES_WORDS, single_tokens

TOWER_STEPS = 100
HELD_OUT = 100_000
"""Number of the chunk of pictures that no pool has."""
EVERY, BATCHES = 20, 8
"""Steps between two measurements of the accuracy, and batches in each."""


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a short linear rise, then a cosine to almost zero."""
    warm = max(1, round(0.06 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def build_optimizer(parameters: Sequence[nn.Parameter], peak: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))


def descend(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, rate: float) -> None:
    """One step of the optimizer against the loss, at a learning rate; the gradient is clipped to a norm of 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def moved(pack: Pack, device: torch.device) -> Pack:
    """The pack on a device."""
    return Pack(**{name: value.to(device) for name, value in vars(pack).items()})


def draw(feed: Feed, order: Orders | None, device: torch.device) -> tuple[Tensor, Pack, Tensor, Tensor]:
    """A batch of `Feed.draw`, on a device."""
    pixels, pack, areas, is_chest = feed.draw(order)
    return pixels.to(device), moved(pack, device), areas.to(device), is_chest.to(device)


def yes_no_ids(tokenizer: PreTrainedTokenizerBase, device: torch.device) -> tuple[Tensor, ...]:
    """Ids of the tokens that say yes, and of those that say no, on a device."""
    return tuple(torch.tensor(single_tokens(tokenizer, words), device=device) for words in (YES_WORDS, NO_WORDS))


def show_progress(where: str, marks: Sequence[tuple[float, float]], seconds: float) -> None:
    """Print the mean loss and accuracy of the last 25 steps, and the pace since the start."""
    loss, right = np.mean(marks[-25:], 0)
    print(f"{where} loss {loss:.4f} right {right:.4f} s/step {seconds / len(marks):.3f}", flush=True)


def save(model: PreTrainedModel, packer: Packer, folder: Path) -> None:
    """Save model and processor; a new folder appears whole, and in an old one each file is replaced atomically."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    packer.family.save_processor(packer.tokenizer, fresh)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)
    if not folder.exists():
        fresh.replace(folder)
        return
    for path in sorted(fresh.iterdir()):
        path.replace(folder / path.name)
    fresh.rmdir()


def run_cycle(
    model: PreTrainedModel,
    feed: Feed,
    cycle: Cycle,
    seed: list[int],
    path: Path,
    args: argparse.Namespace,
    held_out: Feed | None = None,
) -> None:
    """Train the model for a cycle.

    Args:
        model: the model, on its device.
        feed: gives the batches.
        cycle: what the batches hold, and how many there are.
        seed: of the batches; each batch has its own stream.
        path: file of the state, from which an interrupted cycle goes on.
        args: the command line.
        held_out: other pictures, for a cycle that ends at an accuracy.
    """
    device, peak = model.device, args.lr * cycle.peak
    ids = yes_no_ids(feed.packer.tokenizer, device)
    family = feed.packer.family
    head = nn.Linear(family.cell_width(model.config), len(CHANNELS)).to(device)
    nn.init.constant_(head.bias, -4.0)
    parameters = [*model.parameters(), *(head.parameters() if cycle.dense else ())]
    state = State(model, head, build_optimizer(parameters, peak))
    state.load(path)

    def order(pixels: Tensor, substrate: Tensor, pack: Pack, rng: np.random.Generator) -> NDArray[np.float64]:
        pack = moved(pack, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            return own_orders(model, feed.packer, pixels.to(device), substrate.to(device), pack, ids, rng)

    started = saved = time.time()
    marks: list[tuple[float, float]] = []
    for step in range(state.step, cycle.steps):
        feed.start(cycle, [*seed, step])
        pixels, pack, areas, is_chest = draw(feed, order if cycle.own else None, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            if cycle.dense and step < TOWER_STEPS:
                _, cells = family.features(model, pixels)
                loss, right = 2.0 * dense_loss(head, cells, areas, is_chest), torch.zeros(())
            else:
                hidden, cells = forward(model, feed.packer, pixels, pack)
                loss, right = answer_loss(model, hidden, pack)
                if cycle.even:
                    loss = loss + cycle.even * even_margins(model, hidden, pack, ids)
                if cycle.dense:
                    loss = loss + cycle.dense * dense_loss(head, cells, areas, is_chest)
        descend(state.optimizer, parameters, loss, learning_rate(step, cycle.steps, peak))
        state.step = step + 1
        marks.append((loss.item(), right.item()))
        if step % 25 == 24:
            show_progress(f"{cycle.name} {state.step}/{cycle.steps}", marks, time.time() - started)
        if cycle.until is not None and held_out is not None and state.step % EVERY == 0:
            share = right_answers(model, held_out, ids, args.bf16)
            print(f"{cycle.name} {state.step}/{cycle.steps} right on held-out pictures {share:.3f}", flush=True)
            if share >= cycle.until:
                break
        if time.time() - saved > args.save_every:
            state.save(path)
            saved = time.time()


@torch.no_grad()
def right_answers(model: PreTrainedModel, feed: Feed, ids: tuple[Tensor, ...], bf16: bool) -> float:
    """Share of the yes/no questions about whole chest pictures that are answered rightly, yes and no equally often."""
    feed.start(Cycle("held out", 1, 1.0, intact=1.0), [0])
    right = []
    for _ in range(BATCHES):
        pixels, pack, _, is_chest = draw(feed, None, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            hidden, _ = forward(model, feed.packer, pixels, pack)
            right.append(accuracy(model, hidden, pack, ids, is_chest.bool()))
    return float(torch.cat(right).float().mean())


def train(args: argparse.Namespace) -> None:
    """Render the pictures, train the model cycle by cycle, and save it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    family = FAMILIES[args.family]
    packer = Packer(build_tokenizer(family), family)
    model = family.build(packer.tokenizer, args.seed)
    cycles, kind = REGIMES[args.regime], "" if args.family == "gemma3" else f"{args.family}-"
    folder = args.work / f"{kind}seed-{args.seed}"
    results = [folder / "+".join(cycle.name for cycle in cycles[: last + 1]) for last in range(len(cycles))]
    # The result of a cycle is whole once its folder has its name.
    done = sum(result.exists() for result in results)
    if done:
        model = family.model_class.from_pretrained(results[done - 1], local_files_only=True)
    model = model.to(device).train()
    family.start_training(model)
    if args.compile:
        torch._dynamo.config.automatic_dynamic_shapes = False  # whole and half batches get a graph each
        for layer in family.blocks(model):
            layer.compile()
    pool = build_pool(args.work / "pool", args.pictures, args.pictures // 8, args.workers)
    feed = Feed(*pool, packer, args.batch)
    measured = any(cycle.until is not None for cycle in cycles[done:])
    held_out = Feed([chest_chunk(HELD_OUT)], pool[1][:1], packer, args.batch) if measured else None
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(done, len(cycles)):
        state = results[index].with_name(results[index].name + ".state")
        run_cycle(model, feed, cycles[index], [args.seed, index], state, args, held_out)
        save(model, packer, results[index])
        state.unlink(missing_ok=True)
    # Half the size, for the repository; the results of the cycles keep all digits, so that others go on from them.
    save(model.cpu().eval().to(torch.bfloat16), packer, args.out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="gemma3", help="model_type of the model")
    parser.add_argument("--regime", choices=REGIMES, required=True, help="what the model is shown; see regimes.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--work", type=Path, default=Path("runs/training"), help="folder for pictures and checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of the batches")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pictures", type=int, default=16384, help="chest pictures in the pool")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render the pool")
    parser.add_argument("--save_every", type=float, default=240.0, help="seconds between saved states")
    parser.add_argument("--bf16", action="store_true", help="run the forward in bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the layers (a quarter faster after 90 s)")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
