import math
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cxr_faith.metrics.curves import BaselineGap, ColumnMean, Coverage, DeletionAUC, DropAt, MeanCurve, method_metrics
from tests.forked import start_process, wait_for_ranks
from tests.reference import metrics as reference

STEPS = 5
SCALARS = ["deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50"] + [
    f"gap_{metric}_{baseline}" for metric in ("deletion", "insertion", "srg") for baseline in ("random", "center")
]
CURVES = ["deletion_curve", "insertion_curve"]


def random_columns(rows, seed=0):
    """One method's columns; a third of the rows are not ok, and one gap is missing beside them."""
    rng = np.random.default_rng(seed)
    columns = {name: torch.from_numpy(rng.normal(0.3, 1, rows)) for name in SCALARS}
    columns |= {name: torch.from_numpy(rng.normal(0.5, 1, (rows, STEPS + 1))) for name in CURVES}
    ok = torch.from_numpy(rng.random(rows) > 1 / 3)
    for values in columns.values():
        values[~ok] = math.nan
    columns["gap_srg_center"][ok.nonzero()[0]] = math.nan
    effect = torch.from_numpy(rng.gamma(2, 3, rows))
    return {**columns, "ok": ok, "effect": effect, "other": torch.ones(rows)}  # no metric wants it, which does no harm


def part(columns, rows):
    return {name: values[rows] for name, values in columns.items()}


def check_against_all_rows(computed, columns):
    assert set(computed) == {*SCALARS, *CURVES, "coverage"}
    effect = columns["effect"].tolist()
    for name in SCALARS:
        expected = reference.mean_and_error(columns[name].tolist(), effect)[0]
        assert computed[name].item() == pytest.approx(expected, rel=1e-12)
    for name in CURVES:
        expected = [reference.mean_and_error(point, effect)[0] for point in columns[name].T.tolist()]
        np.testing.assert_allclose(computed[name].numpy(), expected, rtol=1e-12)
    assert computed["coverage"].item() == pytest.approx(sum(columns["ok"].tolist()) / len(columns["ok"]))
    assert all(value.dtype == torch.float64 for value in computed.values())


def test_one_process_equals_the_mean_over_all_rows():
    columns, metrics = random_columns(37), method_metrics(STEPS)
    for rows in torch.arange(37).split(4):
        metrics.update(**part(columns, rows))
    check_against_all_rows(metrics.compute(), columns)
    for name in SCALARS:
        error = reference.mean_and_error(columns[name].tolist(), columns["effect"].tolist())[1]
        assert metrics[name].standard_error().item() == pytest.approx(error, rel=1e-9)
    assert metrics["deletion_curve"].standard_error().shape == (STEPS + 1,)


def test_a_first_batch_without_an_ok_row_does_not_join_metrics():
    """All states are still zero after it: torchmetrics' compute groups would take them for one metric."""
    columns, metrics = random_columns(20), method_metrics(STEPS)
    bad = part(columns, ~columns["ok"])
    metrics.update(**bad)
    metrics.update(**part(columns, columns["ok"]))
    assert len(bad["ok"]) > 1
    check_against_all_rows(metrics.compute(), columns)


def test_empty_batch_and_no_update():
    metrics = method_metrics(STEPS)
    metrics.update(**part(random_columns(4), torch.zeros(4, dtype=torch.bool)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns of a compute without an update
        for collection in (metrics, method_metrics(STEPS)):
            assert all(value.isnan().all() for value in collection.compute().values())
            assert all(metric.standard_error().isnan().all() for metric in collection.values())


def test_curve_with_a_missing_point_is_left_out_whole():
    metric = MeanCurve("deletion_curve", 2)
    metric.update(deletion_curve=torch.tensor([[1.0, 0.5, 0.0], [1.0, math.nan, 0.0], [1.0, 0.1, 0.0]]))
    assert metric.compute().tolist() == pytest.approx([1.0, 0.3, 0.0])
    assert metric.count.tolist() == [2, 2, 2]


def test_wrong_columns_are_named():
    with pytest.raises(ValueError, match="DropAt: column 'drop_20' is missing, got srg, ok"):
        DropAt(0.2).update(srg=torch.zeros(1), ok=torch.zeros(1))
    with pytest.raises(ValueError, match=r"MeanCurve: column 'deletion_curve' must be \[B, \*\[6\]\], got \[2, 5\]"):
        MeanCurve("deletion_curve", 5).update(deletion_curve=torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"DeletionAUC: column 'deletion_auc' must be .* got \[\]"):
        DeletionAUC().update(deletion_auc=torch.tensor(0.5))


def test_names_and_directions():
    assert DropAt(0.1).column == "drop_10"
    assert BaselineGap("insertion", "center").column == "gap_insertion_center"
    better = {name: metric.higher_is_better for name, metric in method_metrics(STEPS).items()}
    assert {name for name, higher in better.items() if higher is False} == {"deletion_auc"}
    assert {name for name, higher in better.items() if higher is None} == set(CURVES)


class Host(torch.nn.Module):
    """A module that owns metrics beside parameters, as the evaluation module does."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.metrics = method_metrics(STEPS)


CASTS = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to_bfloat16": lambda module: module.to(torch.bfloat16),
    "to_device_and_half": lambda module: module.to("cpu", torch.float16),
    "type": lambda module: module.type(torch.float16),
}


@pytest.mark.parametrize("cast", CASTS)
def test_sums_stay_float64_when_the_module_is_cast(cast):
    columns, host = random_columns(30), Host()
    host.metrics.update(**part(columns, slice(0, 10)))
    CASTS[cast](host)
    assert host.layer.weight.dtype in (torch.float16, torch.bfloat16)
    host.metrics.update(**part(columns, slice(10, 30)))
    check_against_all_rows(host.metrics.compute(), columns)
    host.metrics.reset()
    assert all(metric.total.dtype == torch.float64 for metric in host.metrics.values())
    host.metrics.update(**columns)
    check_against_all_rows(host.metrics.compute(), columns)


def test_states_follow_the_module_to_another_device():
    host = Host().to("meta")
    assert {metric.total.device.type for metric in host.metrics.values()} == {"meta"}
    assert {metric.device.type for metric in host.metrics.values()} == {"meta"}
    assert host.metrics["srg"].total.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_metrics_on_a_gpu_take_columns_from_the_cpu():
    columns, metrics = random_columns(9), method_metrics(STEPS).to("cuda")
    metrics.update(**columns)
    computed = metrics.compute()
    assert computed["srg"].is_cuda
    check_against_all_rows({name: value.cpu() for name, value in computed.items()}, columns)


def test_float32_columns_are_summed_in_float64():
    metric = ColumnMean("srg")
    metric.update(srg=torch.tensor([2.0**24]))
    for _ in range(3):
        metric.update(srg=torch.ones(1))
    assert metric.total.item() == 2**24 + 3  # float32 would stay at 2**24


def test_coverage_counts_false_rows():
    metric = Coverage()
    metric.update(ok=torch.tensor([True, False, False]))
    metric.update(ok=torch.tensor([True]))
    assert metric.compute().item() == 0.5


def _rank(rank, folder, shares):
    """One of two processes; saves what it computes for every way the rows are shared out."""
    warnings.simplefilter("ignore", UserWarning)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    columns, results = random_columns(11), {}
    for name, share in shares.items():
        metrics = method_metrics(STEPS)
        for rows in share[rank]:
            metrics.update(**part(columns, rows))
        results[name] = metrics.compute()
        results[name, "error"] = metrics["srg"].standard_error()
        results[name, "own count"] = metrics["coverage"].count  # compute must give the rank its own sums back
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


SHARES = {
    "uneven": ([[0, 1, 2], [3]], [[4, 5, 6, 7, 8, 9, 10]]),
    "one rank empty": ([list(range(11))], []),
    "first rank empty": ([], [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10]]),
    "no update anywhere": ([], []),
}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    started = [start_process(folder / "output", _rank, rank, str(folder), SHARES) for rank in range(2)]
    wait_for_ranks(started, folder / "output")
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_equal_the_mean_over_all_rows(two_ranks, share):
    columns = random_columns(11)
    for rank, results in enumerate(two_ranks):
        assert results[share, "own count"].item() == sum(len(rows) for rows in SHARES[share][rank])
        if share == "no update anywhere":
            assert all(value.isnan().all() for value in [*results[share].values(), results[share, "error"]])
            continue
        check_against_all_rows(results[share], columns)
        error = reference.mean_and_error(columns["srg"].tolist(), columns["effect"].tolist())[1]
        assert results[share, "error"].item() == pytest.approx(error, rel=1e-9)
