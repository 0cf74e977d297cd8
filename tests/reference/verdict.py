"""The verdict on a method, read from the JSON of a board, one question after another."""


def clear(test):
    """1, -1 or 0: whether a test as JSON says above 0, below 0, or neither."""
    if test["p_holm"] is None or not test["p_holm"] < 0.05:
        return 0
    for low, high in (("t_low", "t_high"), ("bca_low", "bca_high"), ("low", "high")):
        if test.get(low) is not None and test.get(high) is not None:
            return 1 if test[low] > 0 else -1 if test[high] < 0 else 0
    return 0


def class_of(board, row):
    """The class of one row of a board, both as JSON; None for baselines, controls, blurred copies and ablations."""
    method, srg = row["method"], row["intervals"]["srg"]
    if "/" in method or method in ("random", "center", "random_map", "edges", "oracle", "oracle_near"):
        return None
    if row.get("sanity_failed") is True:
        return "failed sanity"
    hardly_any_effect = board["headline"] != "srg"
    if row["own_substrate"] or hardly_any_effect or srg["mean"] is None:
        return "not assessable"
    if all(srg.get(end) is None for end in ("t_low", "bca_low", "low")):
        return "too few patients to say"
    if clear(srg) == -1:
        return "worse"
    if clear(srg) == 0:
        return "no better than noise"
    for pair in board["differences"]:
        has_interval = any(pair.get(end) is not None for end in ("t_low", "bca_low", "low"))
        if (pair["a"], pair["b"]) == (method, "random_map") and has_interval and clear(pair) != 1:
            return "no better than noise"
        if (pair["a"], pair["b"]) == ("random_map", method) and has_interval and clear(pair) != -1:
            return "no better than noise"
    return "believe" if clear(row["intervals"]["gap_srg_center"]) == 1 else "weak"
