"""What a command says and returns when it cannot go on, and which file a config's name means."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cxr_faith.__main__ import main
from cxr_faith.cli import report
from cxr_faith.cli.configs import find_config, shipped_configs
from cxr_faith.cli.errors import UsageError
from cxr_faith.cli.files import check_model, check_report
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.values import check_value
from cxr_faith.summary.load import no_run
from cxr_faith.vlm import ModelError, bundled_model
from cxr_faith.vlm.checkpoint import read_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "runs/x: No space left on device; nothing that",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "runs/x"), 1, "runs/x: File exists\n"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "runs/x/records"),
            1,
            "runs/x/records: Not a directory\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), 1, "Permission denied; nothing that was written is lost"),
        (UsageError("a\n  b"), 2, "a b"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(report, "main", fail)
    assert main(["report", "runs/x"]) == status
    printed = capsys.readouterr().err
    assert printed.startswith(f"cxr-faith: error: {line}") and printed.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("Input/output error")])
def test_other_errors_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(report, "main", fail)
    with pytest.raises(type(error), match="Input/output"):
        main(["report", "runs/x"])


def test_a_missing_file_gets_the_same_message_before_and_after_the_libraries_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as early:
        check_model(str(tmp_path / "model"))
    with pytest.raises(ModelError, match=re.escape(str(early.value))):
        read_config(tmp_path / "model")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=re.escape(no_run(tmp_path))):
        check_report(str(tmp_path))
    for name in ("bundled", "google/medgemma-4b-it", str(bundled_model())):
        check_model(name)


@pytest.mark.parametrize(
    "words", [["evaluate", "--config", "demo", "--run_dir"], ["sanity", "--config", "demo", "--run_dir"], ["report"]]
)
def test_a_folder_whose_name_is_not_utf_8_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, os.fsdecode(b"runs/caf\xe9")]) == 2
    error = capsys.readouterr().err
    assert error.endswith(" runs/caf\\udce9: the name is not UTF-8; choose another one\n") and error.count("\n") == 1


def test_a_closed_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)  # as after `| head -0`
    words = [sys.executable, "-m", "cxr_faith", "evaluate", "--help"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=variables, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--limit", "x"], "limit must be a whole number, got x"),
        (["--limit", "1e3"], "limit must be a whole number, got 1000.0\n"),
        (["--show_images", "maybe"], "show_images must be true or false, got maybe"),
        (["--model.protocol.controls", "some"], "model.protocol.controls must be one of none, basic, all, got some"),
        (["--model.methods", "[a]"], "model.methods must be a mapping such as {key: value}, got ['a']"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "-3"], "trainer: `devices` selected with `CPUAcc"),
        (["--trainer.accelerator", "mps"], "trainer.accelerator: mps cannot compute in float64"),
    ],
)
def test_a_value_of_another_type_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["evaluate", "--config", "demo", "--run_dir", str(tmp_path), *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    printed = capsys.readouterr().err
    assert status == 2 and printed.startswith(f"cxr-faith: error: {line}") and printed.count("\n") == 1


def accepted(parser: ArgumentParser, value: object) -> bool:
    """Whether the typed parser takes a value, as a word of the command line or from a config file."""
    try:
        if isinstance(value, str):
            parser.parse_args([f"--key={value}"])
        parser.parse_object({"key": value})
    except ArgumentError:
        return False
    return True


def test_values_that_the_typed_parser_takes_are_taken() -> None:
    kinds = {"int": int, "float": float, "bool": bool, "int | None": int | None, "float | None": float | None}
    kinds |= {"int | bool": int | bool, "Literal['no', 'all']": Literal["no", "all"]}
    kinds |= {"Literal['no', 'all'] | None": Literal["no", "all"] | None, "int | str": int | str}
    words = [
        "3",
        "-3",
        " 3",
        "1e-3",
        "1e3",
        "1_000",
        "0x10",
        "017",
        "1:30",
        "inf",
        ".inf",
        "nan",
        "null",
        "~",
        "",
        "all",
    ]
    words += ["no", "true", "True", "off", "abc", "[1, 2]", "{a: 1}", "2020-99-99", "{", "'3'", '"all"']
    refused = set()
    for kind, annotation in kinds.items():
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--key", type=annotation)
        for value in [*words, 3, 3.5, True, None, [1], {"a": 1}, 10**400]:
            try:
                check_value(Option("key", kind, None, ""), value)
            except UsageError:
                refused.add((kind, str(value)))
                assert not accepted(parser, value), (kind, value)
    assert {("int", "abc"), ("float", "[1, 2]"), ("bool", "abc"), ("Literal['no', 'all']", "3")} <= refused
    assert {kind for kind, _ in refused} == set(kinds) - {"int | str"}


def test_a_config_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"demo", "methods", "mimic", "vindr", "sae_bundled", "protocol/trust", "trainer/ddp"} <= set(
        shipped_configs()
    )
    monkeypatch.chdir(tmp_path)
    assert find_config("demo").read_text() == (ROOT / "configs" / "demo.yaml").read_text()
    assert find_config("trainer/ddp").parts[-2:] == ("trainer", "ddp.yaml")
    Path("demo").write_text("limit: 3\n")
    assert find_config("demo") == Path("demo"), "an existing file comes first"
    with pytest.raises(UsageError, match=r"--config trainer/dpd: file not found.*did you mean trainer/ddp\?.*mimic"):
        find_config("trainer/dpd")


@pytest.mark.parametrize("spelling", [["--config", "demo"], ["--config=demo"], ["-c", "demo"]])
def test_shipped_configs_overlay_each_other(
    spelling: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", *spelling, "--config", "protocol/trust", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["manifest"] == "bundled" and config["model"]["protocol"]["controls"] == "all"


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (
            "model: {protocol: {substrate: [mean]}}",
            [],
            "wrong.yaml: unknown key model.protocol.substrate; did you mean",
        ),
        ("[1, 2]", [], "wrong.yaml: the file must hold keys and values"),
        ("model: [1, 2]", [], "wrong.yaml: model must hold keys and values"),
        ("a: [", [], "wrong.yaml: cannot be read as YAML"),
        ("data: {manifest: bundled}", [], "--model.methods missing"),
        ("data: {manifest: bundled}", ["--model.protocol", "{step: 3}"], "unknown key model.protocol.step; did you"),
        ("data: {manifest: bundled}", ["--model.protocol", "{step"], "--model.protocol: cannot be read as YAML"),
        ("model: part.yaml", [], "wrong.yaml: unknown key model.micro; did you mean model.micro_batch?"),
        ("data: {manifest: bundled}", ["--model", "part.yaml"], "unknown key model.micro; did you mean"),
        ("data: {manifest: bundled}", ["--limit"], "--limit needs a value"),
        ("data: {manifest: bundled}", ["--model.methods", "{chefer: {}}", "more"], "unexpected argument 'more'"),
        ("trainer: {device: 2}", [], "unknown key trainer.device; did you mean trainer.devices?"),
    ],
)
def test_a_wrong_name_or_file_is_named(
    content: str,
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(content)
    Path("part.yaml").write_text("micro: 3\n")
    assert main(["evaluate", "--config", "wrong.yaml", *arguments]) == 2
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1
