"""Meta-evaluation on a model that looks at the finding alone: what is broken loses, the truth wins, noise is nothing.

`python -m tests.trust` prints the same for more samples; docs/trust.md shows it.
"""

import pytest

from tests import trust

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Some methods on 12 samples that have evidence."""
    methods = {"attention": {}, "chefer": {}, "oracle": {}, "random_map": {}}
    return trust.meta(tmp_path_factory.mktemp("trust") / "meta", 12, methods, steps=6, random_orders=4)


@pytest.fixture(scope="module")
def rows(summary):
    return {row.method: row for row in summary.board().rows}


def test_nothing_beats_the_truth_and_noise_is_nothing(summary, rows):
    board = summary.board()
    for name in rows.keys() - {"oracle", "random"}:
        ahead = trust.loss(board, name, "oracle")
        assert ahead.bca_high > 0, name  # a method may come as close as twelve samples can tell
        if name not in ("attention", "attention at p", "chefer"):
            assert ahead.bca_low > 0, name
    better = [pair for pair in board.differences if pair.b == "oracle" and pair.mean > 0 and pair.p_holm < 0.05]
    better += [pair for pair in board.differences if pair.a == "oracle" and pair.mean < 0 and pair.p_holm < 0.05]
    assert rows["oracle"].srg > 0.75 and better == []
    for noise in ("random_map", "noise, ReLU"):
        for column in ("gap_deletion_random", "gap_insertion_random", "srg"):
            interval = rows[noise].intervals[column]
            assert interval.bca_low < 0 < interval.bca_high, (noise, column)
    for name in ("oracle", "attention", "chefer"):
        assert rows[name].intervals["srg"].bca_low > 0.3


@pytest.mark.parametrize("name", trust.BROKEN)
def test_a_broken_method_loses_against_the_one_it_was(summary, name):
    difference = trust.loss(summary.board(), name, trust.BROKEN[name][1])
    assert difference.mean > 0.02 and difference.bca_low > 0, difference


def test_a_map_that_never_looks_at_the_model_is_flagged():
    header, *lines = trust.sanity_lines(3, {"attention": {}, "chefer": {}})
    verdicts = {line[0]: line[header.index("verdict")] for line in lines}
    assert verdicts.pop("brightness") == "FAIL" and set(verdicts.values()) == {"pass"}
