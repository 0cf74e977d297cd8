"""The model that ships: it loads offline, is a true Gemma-3 in its interface, and reads the picture."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, Gemma3ForConditionalGeneration

import cxr_faith.vlm

FOLDER = Path(cxr_faith.vlm.__file__).parent / "bundled"
DATA = FOLDER.parents[1] / "data" / "bundled" / "phantom"
WORDS = [space + word for word in ("yes", "Yes", "YES", "no", "No", "NO") for space in ("", " ")]


@pytest.fixture(scope="module")
def model() -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration.from_pretrained(FOLDER, local_files_only=True).eval()


@pytest.fixture(scope="module")
def processor():  # type: ignore[no-untyped-def]
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


def encode(processor, image: Image.Image, question: str):  # type: ignore[no-untyped-def]
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )


def test_small_enough_and_shaped_like_gemma3(model: Gemma3ForConditionalGeneration) -> None:
    assert sum(p.numel() for p in model.parameters()) <= 2_500_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 10 * 2**20
    assert not list(FOLDER.glob("*.bin"))
    text, vision = model.config.text_config, model.config.vision_config
    assert text.layer_types == ["sliding_attention", "sliding_attention", "full_attention"] * 2
    assert text.num_attention_heads > text.num_key_value_heads
    assert model.config.mm_tokens_per_image == (vision.image_size // vision.patch_size) ** 2 == 144
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())


def test_one_bos_and_one_block_of_image_tokens(model: Gemma3ForConditionalGeneration, processor) -> None:  # type: ignore[no-untyped-def]
    batch = encode(processor, Image.new("L", (90, 70), 100), "Is there a nodule?")
    ids = batch["input_ids"][0]
    assert (ids == processor.tokenizer.bos_token_id).sum() == 1
    where = (ids == model.config.image_token_id).nonzero().flatten()
    assert where.tolist() == list(range(5, 149))
    assert batch["token_type_ids"][0].nonzero().flatten().tolist() == where.tolist()
    assert batch["pixel_values"].shape == (1, 3, 216, 216)
    end = "Is there a nodule?<end_of_turn>\n<start_of_turn>model\n"
    assert processor.tokenizer.decode(ids).endswith(f"<end_of_image>\n\n{end}")


def test_yes_and_no_are_single_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in WORDS]
    assert all(len(i) == 1 for i in ids)
    assert len({i[0] for i in ids}) == len(WORDS)
    special = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in special)


@pytest.mark.parametrize("text", ["Größe 心臓 123", "Ist da ein Rundherd? ✓", "a\n\nb", "nodule in the right lung"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_held_out_answers(model: Gemma3ForConditionalGeneration, processor) -> None:  # type: ignore[no-untyped-def]
    rows = pq.read_table(DATA / "manifest.parquet").to_pylist()
    tokenizer = processor.tokenizer
    sides = {"yes": [], "no": []}
    for word in WORDS:
        sides[word.strip().lower()].append(tokenizer.encode(word, add_special_tokens=False)[0])
    hits = []
    for row in rows:
        batch = encode(processor, Image.open(DATA / row["image_path"]), row["question"])
        with torch.no_grad():
            if row["kind"] == "yes_no":
                logits = model(**batch, logits_to_keep=1).logits[0, -1]
                margin = logits[sides["yes"]].logsumexp(0) - logits[sides["no"]].logsumexp(0)
                hits.append(("yes" if margin >= 0 else "no") == row["answer"][0])
            else:
                ids = model.generate(**batch, max_new_tokens=24, do_sample=False)[0, batch["input_ids"].shape[1] :]
                hits.append(tokenizer.decode(ids, skip_special_tokens=True).strip() == ", ".join(row["answer"]))
    assert len(rows) >= 64
    assert sum(hits) / len(hits) >= 0.95


def test_bundled_data_set_is_small_and_balanced() -> None:
    rows = pq.read_table(DATA / "manifest.parquet").to_pylist()
    yes_no = [row for row in rows if row["kind"] == "yes_no"]
    present = [row["answer"] == ["yes"] for row in yes_no]
    assert len(yes_no) == 64 and len({row["patient_id"] for row in rows}) >= 32
    assert 0.6 < sum(present) / len(present) < 0.8
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 3 * 2**20
