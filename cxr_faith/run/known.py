"""What a run that grew takes over from its records instead of computing it again."""

from cxr_faith.cases import Case
from cxr_faith.records.known import COSTS, EXTRAS, KnownSample
from cxr_faith.vlm import VLM
from cxr_faith.vlm.base import Reply


def known_reply(vlm: VLM, known: KnownSample) -> Reply | None:
    """The model's answer as it was recorded; None if it must be asked for."""
    row = known.answer
    if row is None:
        return None
    ids = tuple(row["answer_tokens"])
    return Reply(
        token_ids=ids,
        content=tuple(index for index, token in enumerate(ids) if token not in vlm.special_ids),
        text=row["generated"],
        # Only yes/no questions have them; only answers whose logits were finite are recorded.
        margin=0.0 if row["margin"] is None else row["margin"],
        yes_no_mass=0.0 if row["yes_no_mass"] is None else row["yes_no_mass"],
        option_probs=tuple(row["option_probs"] or ()),
        option_mass=row["option_mass"] or 0.0,
        opens_yes_no=bool(ids) and ids[0] in (*vlm.yes_ids, *vlm.no_ids),
    )


def fill_known(case: Case, known: KnownSample) -> None:
    """Give a case its image use and the maps that were recorded, and why others could not be made."""
    case.image_use |= known.image_use
    for name, row in known.maps.items():
        case.maps[name] = known.map_of(name)
        case.extras[name] = {column: row[column] for column in EXTRAS if row[column] is not None}
        if row["forwards"] is not None:  # copies of maps cost nothing
            case.costs[name] = {column: row[column] for column in COSTS}
    case.failed |= known.failed
