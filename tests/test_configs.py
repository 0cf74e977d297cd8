"""The command line's parser reads every shipped config and builds the module, the data and the Trainer from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.strategies import DDPStrategy

from cxr_faith.__main__ import main
from cxr_faith.attribution import METHODS
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.cli.lightning_cli import EvaluateCLI
from cxr_faith.perturb.condition import Condition
from cxr_faith.run.method_set import BASIC
from cxr_faith.vlm import Gemma3VLM

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in ROOT.glob("configs/*.yaml") if not path.stem.startswith("sae_"))
PHANTOMS = ("demo", "methods", "greedy", "combined")
OVERLAYS = sorted(ROOT.glob("configs/*/*.yaml"))


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a config loads no model, and does not see the Slurm job that the tests may run in."""
    monkeypatch.setattr(Gemma3VLM, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


def read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def overlaid(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested merge; the values of `top` win."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlaid(merged[key], value) if both else value
    return merged


def assert_within(expected: Any, actual: Any, where: str = "") -> None:
    """Every key of `expected` has the same value in `actual`, which may have more keys."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict) and expected.keys() <= actual.keys(), where
        for key, value in expected.items():
            assert_within(value, actual[key], f"{where}.{key}")
    else:
        assert actual == expected, where


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What `cxr-faith evaluate … --print_config` prints."""
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *arguments, "--print_config"])
    assert stop.value.code == 0
    content = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(content, dict)
    return content


def test_there_are_configs_and_overlays() -> None:
    assert {path.stem for path in CONFIGS} >= {"demo", "methods", "mimic", "vindr"}
    assert {f"{path.parent.name}/{path.stem}" for path in OVERLAYS} >= {
        "trainer/ddp",
        "trainer/slurm",
        "protocol/trust",
    }


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path.stem if path else "plain")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_read_as_written(config: Path, overlay: Path | None, capsys: pytest.CaptureFixture[str]) -> None:
    files = [config] if overlay is None else [config, overlay]
    parsed = printed(capsys, *(word for file in files for word in ("--config", str(file))))
    assert_within(overlaid(read(config), read(overlay) if overlay else {}), parsed)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_makes_all_parts(config: Path) -> None:
    # Trainers for GPUs cannot be made on every machine that runs the tests.
    cli = EvaluateCLI(["--config", str(config), "--trainer.accelerator", "cpu", "--trainer.devices", "1"])
    written = read(config)
    assert set(written["model"]["methods"]) | {"center", *BASIC} == set(cli.model.method_set.methods)
    assert cli.model.protocol.steps == written["model"]["protocol"]["steps"]
    assert str(cli.options.run_dir) == f"runs/{config.stem}"
    assert cli.options.show_images is (config.stem in PHANTOMS), "patients' pictures stay out of reports by default"


@pytest.mark.parametrize("overlay", [path for path in OVERLAYS if path.parent.name == "trainer"], ids=lambda p: p.stem)
def test_trainer_overlay_makes_a_patient_ddp_trainer(overlay: Path) -> None:
    files = ["--config", str(ROOT / "configs" / "demo.yaml"), "--config", str(overlay)]
    strategy = EvaluateCLI([*files, "--trainer.devices", "2"]).trainer.strategy
    assert isinstance(strategy, DDPStrategy)
    assert strategy.num_processes == 2
    assert strategy._timeout is not None and strategy._timeout.total_seconds() == 6 * 3600


def test_the_overlay_of_trust_scores_every_method_under_a_substrate_not_its_own() -> None:
    files = [str(ROOT / "configs" / name) for name in ("vindr.yaml", "protocol/trust.yaml")]
    cli = EvaluateCLI([*(word for file in files for word in ("--config", file)), "--trainer.accelerator", "cpu"])
    specs = set(cli.model.protocol.substrates)
    own = {name: method.substrate.spec for name, method in cli.model.method_set.methods.items() if method.substrate}
    assert own and all(specs - {spec} for spec in own.values()) and cli.model.protocol.controls == "all"
    assert {spec.split(":")[0] for spec in cli.model.protocol.conditions} == set(Condition.NAMES)


@pytest.mark.parametrize("config", [path for path in CONFIGS if path.stem not in PHANTOMS], ids=lambda path: path.stem)
def test_configs_for_real_data_use_the_full_protocol(config: Path) -> None:
    protocol = read(config)["model"]["protocol"]
    substrates = ["pair", "blur:0.1"] if config.stem == "planted" else ["blur:0.1"]
    steps = "adaptive" if config.stem in ("mimic", "vindr") else 50
    assert protocol == {"substrates": substrates, "steps": steps, "random_orders": 20}


@pytest.mark.parametrize("config", [*CONFIGS, *OVERLAYS], ids=lambda path: path.stem)
def test_header_states_the_command(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    header = text[: text.index("\n", text.rindex("# "))] if config in OVERLAYS else text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines()) or config in OVERLAYS
    assert "cxr-faith evaluate --config" in header or "slurm/eval.sh" in header
    assert config in OVERLAYS or "Expected:" in header


def test_wrong_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model:\n  methods:\n    chefer:\n  micro_batches: 4\ndata:\n  manifest: bundled\n")
    assert main(["evaluate", "--config", str(broken)]) == 2
    message = capsys.readouterr().err
    assert "micro_batches" in message and "micro_batch?" in message and len(message.splitlines()) == 1


def test_the_table_of_methods_is_the_demos_with_every_method() -> None:
    demo, methods, greedy, combined = (read(ROOT / "configs" / f"{name}.yaml") for name in PHANTOMS)
    options = {name: settings or {} for name, settings in methods["model"]["methods"].items()}
    options |= {name: settings or {} for name, settings in combined["model"]["methods"].items() if name not in options}
    classes = {settings.get("class", name) for name, settings in options.items()}
    classes |= set(greedy["model"]["methods"]) & {"greedy"}  # too expensive for all samples
    classes |= {"file"}  # reads maps that a user brings
    assert classes == {name for name, made in METHODS.items() if made not in CONTROLS}, "those come by themselves"
    ablated = {name: settings for name, settings in options.items() if settings.get("ablated")}
    assert set(ablated) == {f"{name}/ablated" for name in options if f"{name}/ablated" in options}, (
        "an ablation is named after its method"
    )
    for name, settings in ablated.items():
        method = name.removesuffix("/ablated")
        assert {"class": method} | options[method] | {"ablated": True} == settings
    can = {settings.get("class", name) for name, settings in options.items() if settings.get("class", name) in METHODS}
    assert {name for name in can if METHODS[name].can_ablate} == {settings["class"] for settings in ablated.values()}
    assert greedy["model"]["protocol"] == demo["model"]["protocol"] == combined["model"]["protocol"]
    assert methods["model"]["protocol"] == demo["model"]["protocol"]
    assert methods["trainer"] == demo["trainer"]
