"""Damaged and dishonest model folders: one line that names the file and the cause, and nothing is read unhashed."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cxr_faith.cli.errors import UsageError
from cxr_faith.cli.files import check_model
from cxr_faith.vlm import Gemma3VLM, ModelError, bundled_model
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.folder import FILES, INDEX, WEIGHTS, ModelFolder
from cxr_faith.vlm.identity import model_identity
from cxr_faith.vlm.loading import check_files

Damage = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may damage."""
    return shutil.copytree(bundled_model(), tmp_path / "model", ignore=shutil.ignore_patterns("sae", "README.md"))


def loading_error(path: Path) -> str:
    """The one line with which the library refuses a model."""
    with pytest.raises(ModelError) as error:
        Gemma3VLM.from_pretrained(path, device="cpu")
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    return message


def early_error(path: Path) -> str:
    """The same from the command line, before torch is needed."""
    with pytest.raises(UsageError) as error:
        check_model(str(path))
    return str(error.value)


def edit(name: str, **changes: Any) -> Damage:
    """Set keys of a JSON file; `a__b` is a key b in the mapping a."""

    def apply(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text())
        for path, value in changes.items():
            *parents, key = path.split("__")
            inner = content
            for parent in parents:
                inner = inner[parent]
            inner[key] = value
        file.write_text(json.dumps(content))

    return apply


def write(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def shards(folder: Path, **changes: str) -> dict[str, str]:
    """Split the weights into two files with an index."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index | changes}))
    return index


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of the weights."""
    data = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    change(content)
    text = json.dumps(content).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


NORM = "language_model.model.norm.weight"
OTHER = "language_model.model.layers.0.input_layernorm.weight"


def test_sharded_weights_are_the_same_model(folder: Path, bundled: Gemma3VLM) -> None:
    index = shards(folder)
    loaded = Gemma3VLM.from_pretrained(folder, device="cpu")
    assert loaded.identity()["weights"] == bundled.identity()["weights"]
    assert set(ModelFolder.open(folder).weights) == set(index.values())


@pytest.mark.parametrize(
    ("shard", "line"),
    [
        ("../outside.safetensors", "'../outside.safetensors': weights must be *.safetensors files in the folder"),
        ("/outside.safetensors", "weights must be *.safetensors files in the folder"),
        ("model.bin", "'model.bin': weights must be"),
        ("model.pt", "'model.pt': weights must be"),
        ("link.safetensors", "leads out of the model folder"),
        ("linked/outside.safetensors", "weights must be *.safetensors files in the folder"),
        ("none.safetensors", "names none.safetensors, which is missing"),
        ("a" * 3000 + ".safetensors", f"names {'a' * 100}, which is missing"),
        ("a" * 3000 + ".bin", f"names '{'a' * 100}': weights must be"),
        ("nul\0.safetensors", "which is missing"),
        ("model-00001-of-00002.safetensors", "says that model-00001-of-00002.safetensors holds"),
    ],
)
def test_an_index_names_safetensors_of_the_folder_only(folder: Path, shard: str, line: str) -> None:
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / WEIGHTS, outside)
    for name in ("model.bin", "model.pt"):
        (folder / name).write_bytes(b"cos\nmkdir\n(V" + str(folder / "fired").encode() + b"\ntR.")
    (folder / "link.safetensors").symlink_to(outside)
    (folder / "linked").symlink_to(folder.parent)
    second = sorted(load_file(folder / WEIGHTS))[1]
    shards(folder, **{second: shard})
    assert line in loading_error(folder)
    assert line in early_error(folder)
    assert not (folder / "fired").exists()


def test_weights_that_change_elsewhere_are_not_read(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    for name in (WEIGHTS, "tokenizer.json"):
        target = folder.parent / "elsewhere" / name
        (folder / name).rename(target)
        (folder / name).symlink_to(target)
        assert f"{name} leads out of the model folder" in loading_error(folder)
        (folder / name).unlink()
        target.rename(folder / name)
    assert Gemma3VLM.from_pretrained(folder, device="cpu").n_cells == 144


def test_a_snapshot_of_the_hubs_cache_is_links_into_blobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = folder.parent / "hub" / "models--someone--small"
    snapshot = repository / "snapshots" / ("0" * 40)
    for place in (snapshot, repository / "blobs", repository / "refs"):
        place.mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    for number, file in enumerate(sorted(folder.iterdir())):
        (repository / "blobs" / f"{number}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert model_identity(ModelConfig(str(snapshot)))["hash"] == model_identity(ModelConfig(str(folder)))["hash"]
    assert Gemma3VLM.from_pretrained(snapshot, device="cpu").n_cells == 144
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder.parent / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    by_id = ModelConfig("someone/small")
    assert model_identity(by_id)["hash"] == model_identity(ModelConfig(str(folder)))["hash"]
    assert Gemma3VLM.from_pretrained("someone/small", device="cpu").identity()["revision"] == "0" * 40
    assert (model_identity(by_id)["revision"], model_identity(ModelConfig(str(folder)))["revision"]) == ("0" * 40, "")
    # A branch that moves on is not followed within a process: config, hash and weights are of one commit.
    moved = shutil.copytree(snapshot, snapshot.with_name("1" * 40), symlinks=True)
    (moved / "tokenizer_config.json").unlink()
    (repository / "refs" / "main").write_text("1" * 40)
    assert model_identity(by_id)["revision"] == "0" * 40
    monkeypatch.setattr("cxr_faith.vlm.hub._COMMITS", {})
    assert model_identity(by_id)["revision"] == "1" * 40
    assert model_identity(by_id)["hash"] != model_identity(ModelConfig("someone/small", "0" * 40))["hash"]
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "blobs" / "secret").write_bytes((folder / WEIGHTS).read_bytes())
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(folder / WEIGHTS)
    assert "leads out of the model folder" in loading_error(snapshot)
    assert "cannot get someone/other from the hub" in loading_error(Path("someone/other"))


def test_every_file_that_is_read_is_in_the_hash_and_no_other_file_is_read(folder: Path) -> None:
    before = model_identity(ModelConfig(str(folder)))["hash"]
    for name in FILES:
        original = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_bytes((original or b"{}") + b"\n")
        assert model_identity(ModelConfig(str(folder)))["hash"] != before, name
        (folder / name).unlink() if original is None else (folder / name).write_bytes(original)
    assert model_identity(ModelConfig(str(folder)))["hash"] == before
    (folder / "sub").mkdir()
    for name in ("optimizer.pt", "notes.json", "sub/config.json", "video_preprocessor.json"):
        (folder / name).write_text("{")
    (folder / "model.fp16.safetensors").write_bytes(b"")
    assert model_identity(ModelConfig(str(folder)))["hash"] == before
    with ModelFolder.open(folder).staged() as staged:
        assert {file.name for file in staged.iterdir()} == {WEIGHTS, *FILES} & {file.name for file in folder.iterdir()}
    assert Gemma3VLM.from_pretrained(folder, device="cpu").n_cells == 144


def test_an_adapter_is_not_mixed_in(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    assert "holds a PEFT adapter (adapter_config.json): merge it" in loading_error(folder)
    assert "PEFT adapter" in early_error(folder)


def swap_offsets(content: dict[str, Any]) -> None:
    content[NORM]["data_offsets"], content[OTHER]["data_offsets"] = [0, 512], [0, 512]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "model.safetensors is damaged: 0 bytes"),
        (lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**63) + b"{}"), f"a header of {2**63}"),
        (lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**24) + b" " * 2**24), "is damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2) + b"[]"), "is damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1]), "is damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"0"), "is damaged"),
        (lambda folder: header(folder, swap_offsets), "cannot lie at bytes 0 to 512"),
        (lambda folder: header(folder, lambda c: c[NORM].update(dtype="F99")), "unknown number format 'F99'"),
        (lambda folder: header(folder, lambda c: c[NORM].update(dtype="I64")), "cannot lie at bytes"),
        (lambda folder: header(folder, lambda c: c[NORM].update(shape=[-1])), "shape [-1]"),
        (lambda folder: header(folder, lambda c: c[NORM].update(shape=[2**40])), "cannot lie at bytes"),
        (lambda folder: header(folder, lambda c: c[NORM].pop("dtype")), "is damaged: 'dtype'"),
        (write("model.safetensors.index.json", "{"), None),  # not read beside model.safetensors
        (lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"), "no *.safetensors weights"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "other.safetensors"), "holds neither model.safetensors nor"),
        (lambda folder: ((folder / WEIGHTS).unlink(), write(INDEX, "[]")(folder)), "must hold a mapping, not a list"),
        (lambda folder: ((folder / WEIGHTS).unlink(), write(INDEX, "{}")(folder)), "lacks weight_map or metadata"),
    ],
)
def test_damaged_weights_are_named_before_torch_is_loaded(folder: Path, damage: Damage, line: str | None) -> None:
    damage(folder)
    if line is None:
        return check_model(str(folder))
    assert line in early_error(folder)
    assert line in loading_error(folder)


def test_one_tensor_in_two_files(folder: Path) -> None:
    shards(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    weights = load_file(second)
    save_file(weights | {name: tensor for name, tensor in load_file(first).items() if "norm" in name}, second)
    assert "both model-00001-of-00002.safetensors and model-00002-of-00002.safetensors hold" in early_error(folder)


@pytest.mark.parametrize("name", [OTHER, "multi_modal_projector.mm_input_projection_weight"])
def test_a_missing_tensor_is_named_before_weights_are_read(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({key: weight for key, weight in weights.items() if key != name}, folder / WEIGHTS)
    with pytest.raises(ModelError, match=f"{folder} lacks 1 weights, such as .*{name.rsplit('model.')[-1]}"):
        check_files(ModelConfig(str(folder)))
    save_file(weights | {name: weights[name][None]}, folder / WEIGHTS)
    with pytest.raises(ModelError, match=f"{name} has shape"):
        check_files(ModelConfig(str(folder)))
    save_file(weights | {"unknown.weight": weights[NORM].clone()}, folder / WEIGHTS)
    assert Gemma3VLM.from_pretrained(folder, device="cpu").n_cells == 144
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("text_config__hidden_activation", "nope"), ("transformers_weights", "x.bin")]
)
def test_a_config_that_makes_no_model_is_refused_before_weights_are_read(folder: Path, key: str, value: str) -> None:
    edit("config.json", **{key: value})(folder)
    with pytest.raises(ModelError, match=f"cannot load the model from {folder}: .*({value}|{key})"):
        check_files(ModelConfig(str(folder)))


def test_weights_that_are_whole_numbers(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {NORM: weights[NORM].int()}, folder / WEIGHTS)
    assert f"{NORM} holds I32, not floating-point numbers" in loading_error(folder)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("bitsandbytes", "pip install bitsandbytes"),
        ("gptq", "pip install gptqmodel"),
        ("awq", "pip install gptqmodel"),
        ("compressed-tensors", "pip install compressed-tensors"),
        ("fp8", "pip install accelerate"),
        ("torchao", "pip install torchao"),
        ("mine", "is quantized by 'mine', which cannot be read here"),
        (None, "is quantized by None"),
    ],
)
def test_a_quantized_model_names_its_library(folder: Path, method: str | None, line: str) -> None:
    edit("config.json", quantization_config={"quant_method": method})(folder)
    assert line in loading_error(folder)
    assert line in early_error(folder)


@pytest.mark.parametrize(
    "settings", [{"load_in_4bit": True}, [], "int8", {}, {"quant_method": ["a"]}, {"quant_method": {}}]
)
def test_quantization_settings_of_other_shapes(folder: Path, settings: object) -> None:
    edit("config.json", quantization_config=settings)(folder)
    assert "is quantized by" in early_error(folder)
