"""The maps of a run: its methods and controls by name, and which of them are scored under which substrate."""

from collections.abc import Mapping
from typing import Any

from cxr_faith.attribution import Method, build_methods
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.perturb.condition import NONE
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import BLURRED, CENTER, EDGES, ORACLE, RANDOM, RANDOM_MAP, READER
from cxr_faith.records.shown import Shown
from cxr_faith.vlm import VLM

BASIC = (RANDOM_MAP, EDGES, ORACLE)
"""Controls that `controls: basic` and `controls: all` add to the methods of the config."""

SECOND_SUBSTRATE = "mean"
"""Methods whose own baseline is the run's only substrate are scored under this one too."""

Options = dict[str, Any]


class MethodSet:
    """The methods and controls of a run, in the order of its tables.

    Attributes:
        options: name → `{class: …, options…}`; part of the run's identity.
        methods: name → method.
        blurred: names of the methods whose maps are also scored as a blurred copy.
        names: names of all maps: those of the methods, then those of the blurred copies.
        scored: substrate → names of the maps that are scored under it; the protocol's substrates first.
    """

    def __init__(self, config: Mapping[str, Options | None], protocol: Protocol) -> None:
        """Build the methods that a config names, and add the controls that the protocol asks for.

        Args:
            config: name → `{class: …, options…}`; the class defaults to the name.
            protocol: says which controls and substrates there are.

        Raises:
            ValueError: a reserved name, an unknown class, or options that a class does not take.
        """
        if RANDOM in config:
            raise ValueError("methods.random: the random orders are a baseline that is always scored, not a map")
        if READER in config:
            raise ValueError(f"methods.{READER}: this name is the readers', whose boxes are scored as maps")
        self._protocol = protocol
        self.options: dict[str, Options] = {CENTER: {"class": CENTER}}
        self.options |= {name: {"class": name} | (options or {}) for name, options in config.items()}
        if self.options[CENTER] != {"class": CENTER}:
            raise ValueError("methods.center: this name is the center baseline's")
        if protocol.controls != "none":
            for name in BASIC:
                self.options.setdefault(name, {"class": name})
        self.methods: dict[str, Method] = build_methods(self.options)
        self.blurred = self._blurred()
        self.names = [*self.methods, *(name + BLURRED for name in self.blurred)]
        self.scored = self._scored()

    @property
    def explaining(self) -> list[str]:
        """Names of the methods that explain the model: all but the controls."""
        return [name for name, method in self.methods.items() if not isinstance(method, CONTROLS)]

    @property
    def weights(self) -> dict[str, str]:
        """Name → hash of the files that a method loads beside the model, for methods that do."""
        return {name: method.weights for name, method in self.methods.items() if method.weights}

    def check(self, vlm: VLM) -> None:
        """Raise a `MethodError` if a method cannot work with this model."""
        for method in self.methods.values():
            method.check(vlm)

    def uses_substrate(self, name: str, substrate: str) -> bool:
        """Whether a map, or the map that a blurred copy is made from, was computed with this very substrate."""
        method = self.methods.get(name.removesuffix(BLURRED))
        return method is not None and method.substrate is not None and method.substrate.spec == substrate

    def without_mask(self, substrate: str) -> list[str]:
        """Names of the rows that every sample has under a substrate, with or without a mask of its finding."""
        names = self.scored[substrate]
        return [name for name in names if not self.methods[name.removesuffix(BLURRED)].needs_mask] + [RANDOM]

    @property
    def shown(self) -> Shown:
        """The rows of this config, for every sample and for those with a mask."""
        needing = {name: method.mask or "" for name, method in self.methods.items() if method.needs_mask}
        blurred = {name + BLURRED: needing[name] for name in self.blurred if name in needing}
        scored = {spec: (*names, RANDOM) for spec, names in self.scored.items()}
        return Shown(scored, (NONE, *self._protocol.conditions), needing | blurred)

    def _self_scored(self) -> list[str]:
        """Methods whose own baseline is the run's only substrate."""
        only = self._protocol.substrates
        return [
            name
            for name, method in self.methods.items()
            if method.substrate and only == (method.substrate.spec,) and not method.ablated
        ]

    def _blurred(self) -> list[str]:
        if self._protocol.controls == "all":
            return [name for name in self.methods if name != CENTER]
        if self._protocol.controls == "none":
            return []
        return list(dict.fromkeys([*self.explaining[:1], *self._self_scored()[:1]]))  # one for each substrate

    def _scored(self) -> dict[str, list[str]]:
        specs, self_scored = self._protocol.substrates, self._self_scored()
        second = [name for name in self.names if name.removesuffix(BLURRED) in self_scored]
        first = self.names
        if self._protocol.controls == "basic":
            first = [name for name in first if not name.endswith(BLURRED) or name == self.blurred[0] + BLURRED]
        scored = {spec: first for spec in specs}
        if second:
            controls = [name for name, method in self.methods.items() if isinstance(method, CONTROLS)]
            scored[DEFAULT_SUBSTRATE if specs == (SECOND_SUBSTRATE,) else SECOND_SUBSTRATE] = [*controls, *second]
        return scored
