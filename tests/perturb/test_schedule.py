import numpy as np
import pytest

from cxr_faith.perturb.schedule import keep_masks, random_orders, require_permutation, saliency_order, schedule, stream
from tests.reference import schedule as reference

SHAPES = [
    (256, 50),
    (256, 64),
    (256, 256),
    (144, 12),
    (64, 50),
    (225, 15),
    (225, 51),
    (49, 7),
    (49, 49),
    (9, 1),
    (1, 1),
]


@pytest.mark.parametrize(("n_cells", "steps"), SHAPES)
def test_schedule_agrees_with_exact_fractions_and_is_symmetric(n_cells, steps):
    k = schedule(n_cells, steps)
    assert k.dtype == np.int64
    assert k.tolist() == reference.schedule(n_cells, steps)
    assert (k[0], k[-1]) == (0, n_cells)
    assert np.array_equal(k[::-1], n_cells - k)
    assert (np.diff(k) > 0).all()


def test_every_small_schedule():
    for n_cells in range(1, 40):
        for steps in range(1, n_cells + 1):
            if n_cells % 2 and steps % 2 == 0:
                with pytest.raises(ValueError, match=f"use {steps - 1} or {steps + 1} steps"):
                    schedule(n_cells, steps)
                continue
            k = schedule(n_cells, steps)
            assert k.tolist() == reference.schedule(n_cells, steps)
            assert np.array_equal(k[::-1], n_cells - k)


@pytest.mark.parametrize(
    ("n_cells", "steps", "message"),
    [
        (16, 17, "steps=17 is more than the 16 cells"),
        (16, 0, "at least one step"),
        (0, 1, "at least one cell"),
        (225, 50, "use 49 or 51 steps"),
    ],
)
def test_schedule_errors(n_cells, steps, message):
    with pytest.raises(ValueError, match=message):
        schedule(n_cells, steps)


def test_order_is_descending_with_ties_by_the_given_permutation():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 5, 60).astype(np.float32) / 4 - 0.5
    values[values == 0] *= rng.choice([-1.0, 1.0], (values == 0).sum())  # -0.0 and 0.0 are one value
    ties = rng.permutation(60)
    order = saliency_order(values, ties)
    assert order.tolist() == reference.saliency_order(values.tolist(), ties.tolist())
    assert (np.diff(values[order]) <= 0).all()


def test_flat_map_gives_the_tie_break_itself():
    ties = np.random.default_rng(0).permutation(16)
    assert np.array_equal(np.argsort(ties), saliency_order(np.zeros(16), ties))


def test_tiny_differences_are_not_ties():
    values = np.array([0.0, np.finfo(np.float32).tiny, 1.0], dtype=np.float32)
    assert saliency_order(values, [0, 1, 2]).tolist() == [2, 1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_saliency_is_refused(bad):
    with pytest.raises(ValueError, match="not finite in 1 cells"):
        saliency_order([0.0, bad, 1.0], [0, 1, 2])


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 1, 3], "cell 2 is missing"),
        ([0, 1, 2, 4], "cell 3 is missing"),
        ([0, 1, 2, -1], "cell 3 is missing"),
        ([0, 1, 2], r"its shape is \[3\]"),
        ([[0, 1], [2, 3]], r"its shape is \[2, 2\]"),
        ([0.0, 1.0, 2.0, 3.0], "its type is float64"),
    ],
)
def test_order_that_is_not_a_permutation(order, message):
    with pytest.raises(ValueError, match=f"order is not a permutation of 4 cells: {message}"):
        require_permutation(order, 4)


def test_keep_masks_and_saliency_order_check_their_permutations():
    with pytest.raises(ValueError, match="order is not a permutation of 3 cells: cell 2 is missing"):
        keep_masks([0, 1, 1], [0, 3], "deletion")
    with pytest.raises(ValueError, match="tie_break is not a permutation of 3 cells: cell 0 is missing"):
        saliency_order([1.0, 2.0, 3.0], [1, 2, 3])


@pytest.mark.parametrize(("n_cells", "steps"), [(16, 4), (16, 5), (15, 5), (15, 7), (64, 50)])
def test_masks_agree_with_sets_and_obey_the_identity(n_cells, steps):
    k = schedule(n_cells, steps)
    order = np.random.default_rng(steps).permutation(n_cells)
    deletion, insertion = keep_masks(order, k, "deletion"), keep_masks(order, k, "insertion")
    assert deletion.dtype == insertion.dtype == bool
    assert deletion.tolist() == reference.keep_masks(order, k, "deletion")
    assert insertion.tolist() == reference.keep_masks(order, k, "insertion")
    assert np.array_equal(insertion, keep_masks(order[::-1], k, "deletion")[::-1])
    assert np.array_equal(deletion.sum(1), n_cells - k)


def test_keep_masks_errors():
    with pytest.raises(ValueError, match="between 0 and the 4 cells"):
        keep_masks(range(4), [0, 5], "deletion")
    with pytest.raises(ValueError, match="got 'remove'"):
        keep_masks(range(4), [0, 4], "remove")


def test_random_orders_are_reversed_pairs():
    orders = random_orders(49, 6, stream(0, "image", "orders"))
    assert orders.shape == (6, 49)
    assert orders.dtype == np.int64
    assert np.array_equal(orders[0::2], orders[1::2, ::-1])
    assert (np.sort(orders, axis=1) == np.arange(49)).all()
    assert len({tuple(row) for row in orders}) == 6
    assert np.array_equal(orders[:4], random_orders(49, 4, stream(0, "image", "orders")))


@pytest.mark.parametrize("count", [0, 1, 7, -2])
def test_random_orders_must_be_even(count):
    with pytest.raises(ValueError, match=f"must be even and at least 2, got {count}"):
        random_orders(9, count, stream(0, "image", "orders"))


def test_streams_repeat_and_do_not_touch():
    keys = [
        (0, "a", "orders", None),
        (1, "a", "orders", None),
        (0, "b", "orders", None),
        (0, "a", "ties", None),
        (0, "a", "orders", "chefer"),
        (0, "a", "orders", "rollout"),
        (0, "a", "orders", "null"),
        (0, "ao", "rders", None),
        (0, 'a", "orders', "x", None),
    ]
    draws = [tuple(stream(*key).integers(0, 2**62, 4)) for key in keys]
    assert draws == [tuple(stream(*key).integers(0, 2**62, 4)) for key in keys]
    assert len(set(draws)) == len(keys)
    correlation = np.corrcoef([stream(*key).random(4000) for key in keys]) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.08  # five standard deviations of independent streams


def test_stream_golden_values():
    """A change of the seeding changes every published number: these values must not move."""
    assert stream(0, "image-1", "orders").integers(0, 1000, 5).tolist() == [214, 298, 972, 122, 783]
    assert stream(7, "bild-ü", "random_map", "chefer").random() == 0.8482005446895049
    assert random_orders(8, 2, stream(0, "image-1", "orders"))[0].tolist() == [7, 4, 2, 6, 0, 1, 5, 3]
