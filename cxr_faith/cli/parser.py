"""Checks a command's arguments and configs before any heavy library is loaded.

`Command.read` prints the help, refuses an unknown name with the nearest right one, finds config files, and refuses
values that are plainly of another type. `cxr_faith.cli.typed` or Lightning's parser checks the values in full later.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cxr_faith.cli.configs import find_config
from cxr_faith.cli.errors import UsageError, nearest
from cxr_faith.cli.help import section
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.values import check_value

CONFIG = Option("config", "str", "None", "YAML file or name of a shipped config, laid over those before it.")

HELP = Option("help", "", "None", "print this text and exit.")


@dataclass(frozen=True)
class Given:
    """What the user wrote.

    Attributes:
        arguments: for the typed parser; names of shipped configs are replaced by their files.
        positionals: words that belong to no option.
        values: key → value as written, in a config or on the command line; the command line wins.
        configs: the config files, in order.
    """

    arguments: list[str]
    positionals: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    configs: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Command:
    """What a command takes.

    Attributes:
        name: as in `cxr-faith NAME`.
        description: the head of its help.
        groups: title → options, in the order of the help.
        usage: what follows the name in the first line of the help.
        positionals: names of the words that belong to no option; all are required.
        more: whether further words may follow them.
        flags: names of options without a value.
        config: an example of `--config FILE`; empty: the command takes no config.
        hidden: options that the help does not list.
        brief: whether the help shows the first sentence about each option only.
        tail: text below the options.
    """

    name: str
    description: str
    groups: Mapping[str, Sequence[Option]]
    usage: str = "[options]"
    positionals: tuple[str, ...] = ()
    more: bool = False
    flags: tuple[str, ...] = ()
    config: str = ""
    hidden: tuple[Option, ...] = ()
    brief: bool = False
    tail: str = ""

    @property
    def options(self) -> dict[str, Option]:
        """All options by their key."""
        return {option.key: option for options in (*self.groups.values(), self.hidden) for option in options}

    def help(self) -> str:
        """The whole text of `--help`."""
        parts = [f"usage: cxr-faith {self.name} {self.usage}\n", self.description]
        groups = {**self.groups, "options": [*self.groups.get("options", ()), HELP]}
        parts += [section(title, options, self.brief) for title, options in groups.items()]
        return "\n".join([*parts, *([self.tail] if self.tail else [])])

    def read(self, arguments: Sequence[str]) -> Given:
        """Split the arguments and check names and values, also those in config files.

        Prints the help and exits with 0 if it is asked for.

        Raises:
            UsageError: an unknown option or key, a missing option, a value of another type, or a config file that
                cannot be read.
        """
        if {"-h", "--help"} & set(arguments):
            print(self.help(), end="")
            raise SystemExit(0)
        given = Given([], [])
        for key, value in self._pairs(arguments):
            if key == "config":
                file = find_config(value)
                given.configs.append(file)
                given.arguments.append(f"--config={file}")
                given.values.update(self._leaves(_yaml(file), file.parent, f"{file}: "))
            elif key is not None:
                given.values.update(self._checked(key, value))
                given.arguments.append(f"--{key}" if value is None else f"--{key}={value}")
            else:
                given.positionals.append(str(value))
                given.arguments.append(str(value))
        self._check_complete(given)
        options = self.options
        for key, value in given.values.items():
            if key in options:
                check_value(options[key], value)
        return given

    def _pairs(self, arguments: Sequence[str]) -> Iterator[tuple[str | None, Any]]:
        """(key, value) of each option, (None, word) of each other word; a flag's value is None."""
        words = iter(arguments)
        for word in words:
            if self.config and (word == "-c" or word.startswith("-c=")):
                word = f"--config{word[2:]}"
            if not word.startswith("--"):
                yield None, word
                continue
            key, has_value, value = word.removeprefix("--").partition("=")
            if key in self.flags:
                yield key, value if has_value else None
                continue
            self._check_name(key)
            if not has_value:
                following = next(words, None)
                if following is None or following.startswith("--"):
                    raise UsageError(f"--{key} needs a value")
                value = following
            yield key, value

    def _check_name(self, key: str) -> None:
        name = key.removesuffix("+")  # jsonargparse appends to a list with a plus
        known = self.options
        if key == "config" and self.config or name in known or self._is_group(name):
            return
        if not any(option.holds_keys and name.startswith(f"{option.key}.") for option in known.values()):
            names = [*known, *self.flags, *(["config"] if self.config else []), "help"]
            raise UsageError(f"unknown option --{key}{nearest(key, names, '--')}")

    def _is_group(self, key: str) -> bool:
        return any(known.startswith(f"{key}.") for known in self.options)

    def _checked(self, key: str, value: Any) -> dict[str, Any]:
        """One option of the command line; keys that are given for a whole group at once are checked too."""
        if value is None or not self._is_group(key):
            return {key: value}
        content = value if os.path.isfile(value) else _parsed(value, f"--{key}")
        return dict(self._leaves(content, Path(), "", f"{key}."))

    def _leaves(self, content: Any, folder: Path, where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(key, value) of a nested mapping, down to the options; a group may also name a YAML file.

        Args:
            content: the mapping, or the path of a file that holds it.
            folder: what that path is relative to.
            where: start of an error message.
            prefix: key of the mapping with a dot; empty at the top.
        """
        if isinstance(content, str) and os.path.isfile(folder / content):
            content = _yaml(folder / content)
        if not isinstance(content, dict):
            raise UsageError(f"{where}{prefix.rstrip('.') or 'the file'} must hold keys and values")
        for name, value in content.items():
            key = f"{prefix}{name}"
            if key in self.options:
                yield key, value
            elif self._is_group(key):
                if value is not None:
                    yield from self._leaves(value, folder, where, f"{key}.")
            else:
                raise UsageError(f"{where}unknown key {key}{nearest(key, self.options)}")

    def _check_complete(self, given: Given) -> None:
        if "print_config" in given.values:
            return
        words = self.positionals[len(given.positionals) :]
        missing = [key for key, option in self.options.items() if option.default is None and key not in given.values]
        if missing and self.config and not given.configs:
            raise UsageError(f"{', '.join(missing)} missing: give --config FILE, such as --config {self.config}")
        if words or missing:
            names = ", ".join([*words, *(f"--{key}" for key in missing)])
            raise UsageError(f"{names} missing; cxr-faith {self.name} --help explains the options")
        if len(given.positionals) > len(self.positionals) and not self.more:
            raise UsageError(f"unexpected argument {given.positionals[len(self.positionals)]!r}")


def _yaml(file: Path) -> Any:
    try:
        return _parsed(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: cannot be read as YAML: {error}") from error
