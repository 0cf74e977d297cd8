"""The pages of one run as HTML: the list, one sample, the report; without script."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex

from cxr_faith.app.choice import ANSWERED, ORDERS, USE, Choice
from cxr_faith.app.drawing import HEIGHT, WIDTH, charts, map_pictures
from cxr_faith.app.pictures import Pictures
from cxr_faith.app.run_samples import PAGE, RunSamples
from cxr_faith.metrics.functional import STATUSES
from cxr_faith.report.figures import COLORMAP
from cxr_faith.report.formats import number
from cxr_faith.report.head import head_of
from cxr_faith.report.packing import missing
from cxr_faith.report.samples import BANNERS, VALUES, sample_entries
from cxr_faith.report.templates import templates
from cxr_faith.storage.atomic import read_file
from cxr_faith.summary.load import known_summary


class UnknownPageError(LookupError):
    """There is no such page or sample; the message says which."""


class Pages:
    """Makes the pages of a run.

    Args:
        run_dir: the run directory.
        data_root: folder that the pictures are in; None: no picture is opened.

    Raises:
        ValueError: a JSON file of the run is damaged; the message names it.
    """

    def __init__(self, run_dir: Path, data_root: Path | None = None) -> None:
        self._run_dir, self.samples = run_dir, RunSamples(run_dir)
        self._pictures = None if data_root is None else Pictures(run_dir, data_root)
        summary = known_summary(run_dir)
        self._verdict = () if summary is None else head_of(summary).verdict
        self._templates = templates("cxr_faith.app")
        self._templates.globals |= {
            "css": Markup(files("cxr_faith.report").joinpath("page.css").read_text(encoding="utf-8")),
            "number": number,
            "banners": BANNERS,
            "colors": [to_hex(color) for color in mpl.colormaps[COLORMAP](np.linspace(0, 1, 9))],
            "run": run_dir.resolve().name,
        }
        self.routes: dict[str, Callable[[Mapping[str, str]], tuple[str, bytes]]] = {
            "": self.listing,
            "sample": self.sample,
            "report": self.report,
            "picture": self.picture,
        }

    def listing(self, query: Mapping[str, str]) -> tuple[str, bytes]:
        """The list of samples that match.

        Args:
            query: fields of a `Choice`.

        Returns:
            media type and content.

        Raises:
            ValueError: a field that the run does not have.
        """
        choice = self._choice(query)
        page = self.samples.page(choice)
        last = max(0, (page.total - 1) // PAGE)
        if choice.page > last:
            choice = replace(choice, page=last)
            page = self.samples.page(choice)
        rows = [{name: _shown(value) for name, value in row.items()} for row in page.rows.to_dict("records")]
        return self._html(
            "list.html.j2",
            choice=choice,
            rows=rows,
            total=page.total,
            last=last,
            size=PAGE,
            samples=self.samples,
            settings=[(place, ", ".join(setting)) for place, setting in enumerate(self.samples.settings)],
            pairs=lambda names: [(name, name) for name in names],
            statuses=STATUSES,
            answered=ANSWERED,
            uses=USE,
            orders=ORDERS,
            verdict=self._verdict,
        )

    def sample(self, query: Mapping[str, str]) -> tuple[str, bytes]:
        """One sample: answer, scores, maps, curves, its picture if there is a data root.

        Args:
            query: `id`, and fields of the `Choice` whose order previous and next follow.

        Raises:
            ValueError: a field that the run does not have.
            UnknownPageError: there is no such sample.
        """
        choice, sample_id = self._choice(query), query.get("id", "")
        records = self.samples.sample(sample_id)
        if records.empty:
            raise UnknownPageError(f"This run has no sample {sample_id!r}.")
        settings, methods = self.samples.settings, self.samples.methods
        rows = records[records[list(settings[0]._fields)].eq(list(settings[choice.setting])).all(axis=1)]
        rows = rows.sort_values("method", key=lambda names: names.map(methods.index), kind="stable")
        (entry,) = sample_entries(records, settings, methods, budget=0)
        scores = [
            (methods[method], status, bool(own), [value if isinstance(value, float) else None for value in values])
            for setting, method, status, own, _, _, *values in entry.rows
            if setting == choice.setting and isinstance(method, int)
        ]
        known, orders = rows["status"].dropna().unique().tolist(), rows["random_srgs"].dropna().tolist()
        return self._html(
            "sample.html.j2",
            choice=choice,
            entry=entry,
            status=known[0] if len(known) == 1 else "ok",
            orders=len(orders[0]) if orders else 0,
            setting=settings[choice.setting],
            place=self.samples.place(sample_id, choice),
            scores=scores,
            columns=VALUES,
            shares={methods[place]: shares for place, shares in entry.shares.items()},
            maps=map_pictures(rows, over=self._pictures is not None),
            charts=charts(rows, methods),
            size=(WIDTH, HEIGHT),
            region=None if self._pictures is None else self._pictures.region,
        )

    def report(self, query: Mapping[str, str]) -> tuple[str, bytes]:
        """The run's report page as `cxr-faith report` wrote it.

        Raises:
            UnknownPageError: there is none yet.
        """
        try:
            return "text/html; charset=utf-8", read_file(self._run_dir / "report" / "index.html")
        except FileNotFoundError:
            raise UnknownPageError(f"There is no report yet: cxr-faith report {self._run_dir} writes it.") from None

    def picture(self, query: Mapping[str, str]) -> tuple[str, bytes]:
        """A picture of a sample as JPEG.

        Args:
            query: `id`, and `n`, which picture of a question that shows several, from 0.

        Raises:
            UnknownPageError: there is no such sample or no data root.
            ImageError: the file cannot be used.
        """
        records = self.samples.sample(query.get("id", "")) if self._pictures is not None else pd.DataFrame()
        paths, place = [] if records.empty else _paths(records.iloc[0]), query.get("n", "0")
        if self._pictures is None or place not in map(str, range(len(paths))):
            raise UnknownPageError("No picture.")
        return "image/jpeg", self._pictures.jpeg(paths[int(place)])

    def message(self, title: str, text: str) -> bytes:
        """A page that says why there is no other one."""
        return self._html("message.html.j2", title=title, text=text)[1]

    def _choice(self, query: Mapping[str, str]) -> Choice:
        return Choice.from_query(query, len(self.samples.settings), self.samples.methods)

    def _html(self, template: str, **values: object) -> tuple[str, bytes]:
        return "text/html; charset=utf-8", self._templates.get_template(template).render(**values).encode()


def _paths(row: "pd.Series[Any]") -> list[str]:
    """Where the pictures of a sample are, below the data root."""
    several = row.get("images")
    if several is not None and not missing(several) and len(several):
        return [str(image["path"]) for image in several]
    return [] if missing(row["image_path"]) else [str(row["image_path"])]


def _shown(value: object) -> object:
    """A value of a table for a template: None where it is missing, a list with commas."""
    if isinstance(value, str | int | float) and value == value:
        return value
    return None if missing(value) or not hasattr(value, "__iter__") else ", ".join(map(str, value))
