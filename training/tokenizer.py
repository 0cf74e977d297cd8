"""The tokenizer of a trained model: a small vocabulary with the special tokens of its family.

Byte-pair merges are learned on the phrasings of the phantom questions and a few dozen general words; everything else
falls back to bytes, so no text becomes <unk>.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from architecture import Family
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GemmaTokenizer

from cxr_faith.data.sources.phantom_questions import FINDINGS, SIDES, every_question
from cxr_faith.data.sources.phantom_shapes import sample_shape, shape_questions

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
FORCED = tuple(space + word for word in ("yes", "Yes", "YES", "no", "No", "NO") for space in ("", "▁"))
GENERAL = """
A the of and to in is are was be there this that these any some with without from by for what where which who how
when why do does did has have had can could show shows seen see image picture chest radiograph xray X-ray lung lungs
heart rib ribs spine diaphragm mediastinum hilum opacity edema fracture mass lesion normal abnormal enlarged small
large mild severe evidence sign signs patient study view frontal lateral upper middle lower left right both
bilateral side zone lobe pleural fluid air focal diffuse new old acute chronic please describe explain answer
question report impression findings finding disease pneumonia atelectasis tube line device device. or not but also
more less than very one two three black white gray color shape top bottom center corner half quadrant user model
system"""


def corpus(words: tuple[str, ...] = ()) -> Iterator[str]:
    """Lines to learn merges from: every question and answer as the model sees it, and words of a chat template."""
    for question in every_question():
        yield question.text
    for finding in FINDINGS:
        yield from (f"no {finding}", finding, f"{finding},", f"{finding.capitalize()}", f"x {finding},")
        for side in SIDES:
            yield f"{finding} on the {side} side"
            yield from (f"{finding} in the {side} {zone} lung" for zone in ("upper", "middle", "lower"))
    yield from ("no finding", "left", "right", "user", "model", "yes", "no")
    for i in range(400):
        for asked in shape_questions(sample_shape(f"corpus-{i}", 0)):
            yield from (asked.text, asked.answer)
    for word in (*FORCED, "user", "model", "left", "right", "no", *words):
        yield from [word] * 50
    for word in GENERAL.split():
        yield from [f"a {word}"] * 3


def _learn_merges(size: int, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges of `size` entries that never cross a word, a number or a punctuation mark."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator((line.replace(" ", "▁") for line in corpus(words)), trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def build_tokenizer(family: Family, size: int = 800) -> GemmaTokenizer:
    """Learn the vocabulary and build the tokenizer (deterministic).

    Args:
        family: whose special tokens it has.
        size: upper bound on the number of entries.

    Returns:
        a tokenizer with the family's special tokens, byte fallback and single-token yes/no variants.
    """
    ascii_chars = [chr(c) for c in range(33, 127)] + ["▁", "\n"]
    room = size - len(SPECIAL) - len(family.special) - 256 - len(ascii_chars) - 24
    merges = _learn_merges(room + len(ascii_chars), family.words)[:room]
    merges += [("\n", "\n"), ("\n\n", "\n")]
    entries = [
        *SPECIAL,
        *family.special.values(),
        *(f"<0x{b:02X}>" for b in range(256)),
        *ascii_chars,
        *("".join(m) for m in merges),
    ]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(entries))}
    tokenizer = GemmaTokenizer(
        vocab=vocab,
        merges=merges,
        extra_special_tokens=dict(family.special),
        clean_up_tokenization_spaces=False,
    )
    for word in (*FORCED, *family.words):
        if len(tokenizer.encode(word.replace("▁", " "), add_special_tokens=False)) != 1:
            raise RuntimeError(f"{word!r} is not a single token: the merges must be learned again")
    return tokenizer
