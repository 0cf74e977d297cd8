"""Model folders in the layouts in which MedGemma is published, with small weights that are bent to answer or to think.

`old` is how google/medgemma-4b-it is laid out: config keys of transformers 4.51, chat template as JSON. `new` is how
google/medgemma-1.5-4b-it is: keys of 4.57, template as Jinja, settings of the fast image processor. Both have two
shards with an index, bfloat16 weights, sampling defaults and two end tokens in `generation_config.json`, and more rows
of embeddings than the tokenizer has tokens.

The small tokenizer is the bundled one with Gemma's special tokens at Gemma's ids. The true tokenizer is taken if
CXR_FAITH_GEMMA_TOKENIZER names a folder that holds its tokenizer.json and tokenizer_config.json.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from cxr_faith.vlm import bundled_model

TRUE_TOKENIZER = "CXR_FAITH_GEMMA_TOKENIZER"
HIDDEN, TOWER, LAYERS, TOWER_LAYERS, SPARE_ROWS = 64, 32, 3, 2, 64
PIXELS, PATCH, SIDE = 112, 14, 4  # 8 x 8 patches become 4 x 4 image tokens
THOUGHT = "thought the heart is large"
MARKS = {100: "<unused94>", 101: "<unused95>", 105: "<start_of_turn>", 106: "<end_of_turn>", 107: "\n", 108: "\n\n"}
_NAMED = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")


def publish(folder: Path, layout: str, tokenizer: Path | None = None, thinks: bool = False, new_keys: bool = False):
    """Write a folder.

    Args:
        folder: where to; made here.
        layout: `old` or `new`.
        tokenizer: folder of the true tokenizer; default: the small one.
        thinks: answers open with a thought.
        new_keys: name the weights as transformers does since 4.52, not as they are published.
    """
    folder.mkdir(parents=True)
    old = layout == "old"
    _write_tokenizer(folder, old, tokenizer)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = {name: tokens.token_to_id(name) for name in _NAMED}
    rows = ids["<image_soft_token>"] + SPARE_ROWS
    _dump(folder / "config.json", _config(old, rows, ids))
    generation = {"cache_implementation": "hybrid", "do_sample": True, "eos_token_id": [1, 106], "top_k": 64}
    _dump(folder / "generation_config.json", {"bos_token_id": 2, "pad_token_id": 0, "top_p": 0.95, **generation})
    _write_processor(folder, old)
    chain = [107, *(_ids_of_thought(tokens) if thinks else ()), tokens.encode("Yes", add_special_tokens=False).ids[0]]
    _write_weights(folder, _weights(rows, [*chain, 106]), new_keys)


def _dump(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1))


def _ids_of_thought(tokens: Tokenizer) -> list[int]:
    """A thought without any token twice, so that each can lead to the next."""
    return list(dict.fromkeys([100, *tokens.encode(THOUGHT, add_special_tokens=False).ids, 101]))


def small_tokenizer() -> dict[str, Any]:
    """The bundled tokenizer with Gemma's special tokens at Gemma's ids, and the image token after all others."""
    content: dict[str, Any] = json.loads((bundled_model() / "tokenizer.json").read_text())
    names = [name for name, _ in sorted(content["model"]["vocab"].items(), key=lambda entry: entry[1])]
    names = [name for name in names if name not in (*MARKS.values(), *_NAMED)] + ["<start_of_image>", "<end_of_image>"]
    for place, name in sorted(MARKS.items()):
        names.insert(place, name)
    content["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    added = [*enumerate(names[:5]), *sorted(MARKS.items())]
    added += [(len(names) - 2 + offset, name) for offset, name in enumerate(_NAMED)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [
        {"id": index, "content": name, **plain, "special": index not in (4, 100, 101, 107, 108)}
        for index, name in added
    ]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    content["post_processor"]["single"].insert(0, bos)
    content["post_processor"]["special_tokens"] = {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
    return content


def _write_tokenizer(folder: Path, old: bool, true: Path | None) -> None:
    if true is None:
        content = small_tokenizer()
        _dump(folder / "tokenizer.json", content)
        named = dict(zip(("boi_token", "eoi_token", "image_token"), _NAMED, strict=True))
        added = {str(token.pop("id")): token for token in content["added_tokens"]}
        settings = {"added_tokens_decoder": added, "extra_special_tokens": named, **named, "bos_token": "<bos>"}
        settings |= {"add_bos_token": True, "clean_up_tokenization_spaces": False, "tokenizer_class": "GemmaTokenizer"}
        settings |= {"pad_token": "<pad>", "unk_token": "<unk>", "processor_class": "Gemma3Processor"}
        template = (bundled_model() / "chat_template.jinja").read_text()
    else:
        shutil.copy(true / "tokenizer.json", folder)
        settings = json.loads((true / "tokenizer_config.json").read_text())
        template = settings.pop("chat_template")
    _dump(folder / "tokenizer_config.json", settings | {"eos_token": "<eos>"})
    if old:
        _dump(folder / "chat_template.json", {"chat_template": template})
    else:
        (folder / "chat_template.jinja").write_text(template)
    image = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<image_soft_token>")
    _dump(folder / "added_tokens.json", {"<image_soft_token>": image})
    standard = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    _dump(folder / "special_tokens_map.json", standard | dict(zip(("boi_token", "eoi_token"), _NAMED, strict=False)))


def _config(old: bool, rows: int, ids: dict[str, int]) -> dict[str, Any]:
    """The config as it is published, of a smaller model."""
    dtype = {"torch_dtype" if old else "dtype": "bfloat16"}
    text = {"attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None, "head_dim": 16}
    text |= {"final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": HIDDEN}
    text |= {"intermediate_size": 96, "max_position_embeddings": 131072, "model_type": "gemma3_text"}
    text |= {"num_attention_heads": 4, "num_hidden_layers": LAYERS, "num_key_value_heads": 2, "vocab_size": rows}
    text |= {"query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "use_cache": True}
    text |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000.0, "sliding_window": 1024}
    vision = {"attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": TOWER, "image_size": PIXELS}
    vision |= {"intermediate_size": 48, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model"}
    vision |= {"num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": TOWER_LAYERS, "patch_size": PATCH}
    vision |= {"vision_use_head": False}
    if old:
        text |= {"cache_implementation": "hybrid", "sliding_window_pattern": LAYERS}
    else:
        kinds = ["full_attention" if index % LAYERS == LAYERS - 1 else "sliding_attention" for index in range(LAYERS)]
        text |= {"_sliding_window_pattern": LAYERS, "use_bidirectional_attention": False, "layer_types": kinds}
    boi, eoi, image = (ids[name] for name in _NAMED)
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106]}
    config |= {"boi_token_index": boi, "eoi_token_index": eoi, "image_token_index": image, "initializer_range": 0.02}
    config |= {"mm_tokens_per_image": SIDE**2, "transformers_version": "4.51.3" if old else "4.57.1"}
    return config | dtype | {"text_config": text | dtype, "vision_config": vision | dtype}


def _write_processor(folder: Path, old: bool) -> None:
    settings: dict[str, Any] = {"do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None}
    settings |= {"do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    settings |= {"image_processor_type": "Gemma3ImageProcessor", "image_seq_length": SIDE**2}
    settings |= {"pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None}
    settings |= {"pan_and_scan_min_ratio_to_activate": None, "processor_class": "Gemma3Processor"}
    settings |= {"rescale_factor": 0.00392156862745098, "size": {"height": PIXELS, "width": PIXELS}}
    if not old:
        settings |= {"image_processor_type": "Gemma3ImageProcessorFast", "data_format": "channels_first"}
        names = ("crop_size", "device", "do_center_crop", "disable_grouping", "input_data_format", "return_tensors")
        settings |= dict.fromkeys((*names, "do_pad", "pad_size")) | {"default_to_square": True}
    _dump(folder / "preprocessor_config.json", settings)
    _dump(folder / "processor_config.json", {"image_seq_length": SIDE**2, "processor_class": "Gemma3Processor"})


def _weights(rows: int, chain: Sequence[int]) -> dict[str, torch.Tensor]:
    """Random weights by published name. The first channels pass every layer unchanged and make tokens follow a chain.

    Args:
        rows: rows of the embedding, which is the output projection too.
        chain: ids; after each of them, the next one is the most likely.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    weights: dict[str, torch.Tensor] = {}
    tower = "vision_tower.vision_model."
    weights[f"{tower}embeddings.patch_embedding.weight"] = random(TOWER, 3, PATCH, PATCH) / PATCH
    weights[f"{tower}embeddings.patch_embedding.bias"] = torch.zeros(TOWER)
    weights[f"{tower}embeddings.position_embedding.weight"] = random((PIXELS // PATCH) ** 2, TOWER)
    for index in range(TOWER_LAYERS):
        layer = f"{tower}encoder.layers.{index}."
        shapes = {f"self_attn.{name}": (TOWER, TOWER) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        for name, shape in (shapes | {"mlp.fc1": (48, TOWER), "mlp.fc2": (TOWER, 48)}).items():
            weights[f"{layer}{name}.weight"], weights[f"{layer}{name}.bias"] = random(*shape), torch.zeros(shape[0])
        for name in ("layer_norm1", "layer_norm2"):
            weights[f"{layer}{name}.weight"], weights[f"{layer}{name}.bias"] = torch.ones(TOWER), torch.zeros(TOWER)
    weights[f"{tower}post_layernorm.weight"], weights[f"{tower}post_layernorm.bias"] = (
        torch.ones(TOWER),
        torch.zeros(TOWER),
    )
    weights["multi_modal_projector.mm_input_projection_weight"] = random(TOWER, HIDDEN)
    weights["multi_modal_projector.mm_soft_emb_norm.weight"] = torch.zeros(TOWER)
    embeddings = random(rows, HIDDEN)
    channels = len(chain) - 1
    embeddings[:, :channels] = 0
    for channel, (token, following) in enumerate(zip(chain, chain[1:], strict=False)):
        embeddings[token, channel] = 3.0 ** (channel + 1)
        embeddings[following, channel] = 3.0 ** (channel + 2)
    weights["language_model.model.embed_tokens.weight"] = embeddings
    for index in range(LAYERS):
        layer = f"language_model.model.layers.{index}."
        shapes = {"q_proj": (64, HIDDEN), "k_proj": (32, HIDDEN), "v_proj": (32, HIDDEN), "o_proj": (HIDDEN, 64)}
        weights |= {f"{layer}self_attn.{name}.weight": random(*shape) for name, shape in shapes.items()}
        shapes = {"gate_proj": (96, HIDDEN), "up_proj": (96, HIDDEN), "down_proj": (HIDDEN, 96)}
        weights |= {f"{layer}mlp.{name}.weight": random(*shape) for name, shape in shapes.items()}
        weights |= {f"{layer}self_attn.{name}.weight": torch.ones(16) for name in ("q_norm", "k_norm")}
        for name in ("input_layernorm", "pre_feedforward_layernorm"):
            weights[f"{layer}{name}.weight"] = torch.zeros(HIDDEN)
        for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
            weights[f"{layer}{name}.weight"] = torch.full((HIDDEN,), -0.5)
            weights[f"{layer}{name}.weight"][:channels] = -1  # RMSNorm multiplies by 1 + weight
    weights["language_model.model.norm.weight"] = torch.zeros(HIDDEN)
    return {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}


def _write_weights(folder: Path, weights: dict[str, torch.Tensor], new_keys: bool) -> None:
    if new_keys:
        moved = {name: name.replace("language_model.model.", "language_model.") for name in weights}
        weights = {f"model.{moved[name]}": weight for name, weight in weights.items()}
    names = sorted(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    size = sum(weight.numel() * 2 for weight in weights.values())
    _dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})
