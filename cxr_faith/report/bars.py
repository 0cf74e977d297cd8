"""Bars about one explanation: attention by layer, the map by region, relevance by word."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cxr_faith.report.figures import OKABE_ITO, chart, legend_below, plain

FULL_ATTENTION = "full_attention"


def layer_attention_bars(shares: Sequence[float], layer_types: Sequence[str]) -> Figure:
    """Draw each decoder layer's share of attention on the image tokens; global layers are solid, local ones hatched.

    Args:
        shares: [layers], 0 to 1.
        layer_types: [layers], `full_attention` or `sliding_attention`, as the model's config names them.

    Raises:
        ValueError: different lengths.
    """
    if len(shares) != len(layer_types):
        raise ValueError(f"{len(shares)} shares for {len(layer_types)} layers")
    figure = chart(2.4)
    axes = figure.subplots()
    for layer, (share, kind) in enumerate(zip(shares, layer_types, strict=True)):
        whole = kind == FULL_ATTENTION
        fill, hatch = (OKABE_ITO[0], "") if whole else ("white", "////")
        axes.bar(layer, share, color=fill, ec=OKABE_ITO[0], hatch=hatch)
    step = max(1, len(shares) // 12)
    axes.set(
        xlabel="decoder layer", ylabel="attention on the image", xticks=range(0, len(shares), step), ylim=(0, None)
    )
    handles = [
        Patch(fc=OKABE_ITO[0], ec=OKABE_ITO[0], label="global"),
        Patch(fc="white", ec=OKABE_ITO[0], hatch="////", label="local (sliding window)"),
    ]
    legend_below(figure, handles=handles)
    plain(axes)
    return figure


def region_bars(shares: Mapping[str, float | None], areas: Mapping[str, float] | None = None) -> Figure:
    """Draw the share of a map's positive mass in each region, with the region's share of the area as a tick.

    The map favors a region whose bar goes beyond its tick (enrichment above 1).

    Args:
        shares: region → share of the mass, 0 to 1; None (no mass) draws no bar.
        areas: region → share of the picture.
    """
    names = list(shares)
    figure = chart(0.7 + 0.2 * len(names))
    axes = figure.subplots()
    axes.barh(names, [shares[name] or 0 for name in names], color=OKABE_ITO[0], height=0.65)
    if areas:
        known = [(row, areas[name]) for row, name in enumerate(names) if name in areas]
        x, y = [area for _, area in known], [row for row, _ in known]
        axes.plot(x, y, "|", color="black", ms=10, mew=1.5, label="share of the area")
        legend_below(figure)
    axes.set(xlabel="share of the map", xlim=(0, max([0.05, *(share or 0 for share in shares.values())]) * 1.1))
    axes.invert_yaxis()
    plain(axes)
    return figure


def text_relevancy_bars(relevancy: Sequence[tuple[str, float]], most: int = 30) -> Figure:
    """Draw the relevance of the words around the image, in their order; of many words the strongest.

    Args:
        relevancy: (token, value), in order, as `Explanation.text_relevancy`.
        most: how many tokens are drawn.

    Raises:
        ValueError: no token.
    """
    if not relevancy:
        raise ValueError("no text relevancy: this method rates the image alone")
    values = np.array([value for _, value in relevancy], np.float64)
    kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:most])
    labels = [visible(relevancy[i][0]) for i in kept]
    figure = chart(0.6 + 0.15 * len(kept))
    axes = figure.subplots()
    rows = np.arange(len(kept))
    axes.barh(rows, values[kept], color=[OKABE_ITO[0] if v >= 0 else OKABE_ITO[1] for v in values[kept]], height=0.7)
    axes.set(yticks=rows, xlabel="relevance for the answer", ylim=(len(kept) - 0.4, -0.6))
    axes.set_yticklabels(labels)
    plain(axes)
    return figure


def visible(token: str) -> str:
    """A token with its whitespace made visible: a leading space as an open box, a line break as an arrow."""
    shown = token.replace("\n", "↵").replace("\t", "⇥").replace("▁", " ")
    return f"␣{shown[1:]}" if shown.startswith(" ") else shown or "∅"
