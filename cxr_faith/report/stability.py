"""Do answers and maps survive another wording of the question? From the variants of each question group."""

from typing import Any

import numpy as np
import pandas as pd

from cxr_faith.metrics.agreement import spearman
from cxr_faith.report.board import Floats, numbers
from cxr_faith.report.panels import maps_of
from cxr_faith.report.significance import DIGITS


def stability_panel(records: pd.DataFrame) -> dict[str, Any] | None:
    """Each variant of a question against the first one of its group, on the same image.

    The first one is that without a strategy, then by `variant`, then by `sample_id`.

    Args:
        records: rows of one substrate, target and space, sorted by key, condition "none".

    Returns:
        None without variants, else `answers` (a list over strategies and "all": `n`, `flip_rate`, `margin_shift`, the
        mean absolute one in logits) and `maps` (a list over methods: `n`, `spearman` of the maps, `gap_change`, the
        mean absolute one in gap_srg_random).
    """
    pairs = _pairs(records)
    if pairs.empty:
        return None
    samples = records.groupby("sample_id", sort=True)[["predicted", "margin"]].first()
    before, after = (samples.loc[pairs[side]].reset_index(drop=True) for side in ("base", "variant"))
    answered = (before["predicted"].notna() & after["predicted"].notna()).to_numpy(bool)
    flipped = before["predicted"].ne(after["predicted"]).to_numpy(bool)
    shift = np.abs(numbers(after["margin"]) - numbers(before["margin"]))
    strategies = pairs["strategy"].fillna("unnamed").to_numpy(str)
    answers = []
    for name in ("all", *sorted(set(strategies))):
        inside = answered & ((strategies == name) | (name == "all"))
        if inside.any():
            answers.append(
                {
                    "strategy": name,
                    "n": int(inside.sum()),
                    "flip_rate": _mean(flipped[inside].astype(np.float64)),
                    "margin_shift": _mean(shift[inside]),
                }
            )
    maps = [_maps(name, rows.set_index("sample_id"), pairs) for name, rows in records.groupby("method", sort=True)]
    return {"answers": answers, "maps": [entry for entry in maps if entry["n"]]}


def _pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Columns `base`, `variant` (sample ids) and `strategy`, one row for each variant but the first of its group."""
    columns = ["sample_id", "image_id", "question_group", "variant", "strategy"]
    samples = records[columns].drop_duplicates("sample_id")
    samples = samples[samples["question_group"].notna()].assign(paraphrase=lambda rows: rows["strategy"].notna())
    samples = samples.sort_values(["image_id", "question_group", "paraphrase", "variant", "sample_id"], kind="stable")
    base = samples.groupby(["image_id", "question_group"])["sample_id"].transform("first")
    pairs = pd.DataFrame({"base": base, "variant": samples["sample_id"], "strategy": samples["strategy"]})
    return pairs[pairs["base"].ne(pairs["variant"])].reset_index(drop=True)


def _maps(method: object, rows: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Any]:
    drawn = rows[rows["map"].notna()]
    both = pairs[pairs["base"].isin(drawn.index) & pairs["variant"].isin(drawn.index)]
    if both.empty:
        return {"method": method, "n": 0}
    before, after = drawn.loc[both["base"]], drawn.loc[both["variant"]]
    change = np.abs(numbers(after["gap_srg_random"]) - numbers(before["gap_srg_random"]))
    return {
        "method": method,
        "n": len(both),
        "spearman": _mean(spearman(maps_of(before), maps_of(after))),
        "gap_change": _mean(change),
    }


def _mean(values: Floats) -> float | None:
    values = values[np.isfinite(values)]
    return float(f"{values.mean():.{DIGITS}g}") if len(values) else None
