"""Procedural frontal chest phantoms: radiograph-like pictures whose findings are known to the pixel.

A phantom is a small specification (pose, anatomy, exposure, lesions), sampled from its name and a seed and rendered at
any size. Lesions are spread over the apices, bases and periphery of both lungs, so that "the middle of the
picture" is a bad explanation. As in radiographs, the left of the picture is the patient's right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cxr_faith.data.sources.phantom_body import ANATOMY
from cxr_faith.data.sources.phantom_files import write_samples
from cxr_faith.data.sources.phantom_placement import place
from cxr_faith.data.sources.phantom_questions import FINDINGS, Question, answer, every_question
from cxr_faith.data.sources.phantom_render import render, stream
from cxr_faith.data.sources.phantom_spec import HEART_LARGE, HEART_NORMAL, Lesion, Phantom

__all__ = ["ANATOMY", "FINDINGS", "Lesion", "Phantom", "questions", "render", "sample_phantom", "write"]

SIZE = (256, 288)
FINDING_COUNT = (0.15, 0.40, 0.30, 0.15)


def sample_phantom(
    image_id: str,
    seed: int,
    patient_id: str | None = None,
    study_id: str | None = None,
    findings: Iterable[str] | None = None,
) -> Phantom:
    """Sample a phantom: the same name and seed always give the same phantom.

    Args:
        image_id: name of the picture.
        seed: seed of the data set.
        patient_id: name of the patient, which determines the anatomy; default: the picture's name.
        study_id: name of the study; default: the picture's name.
        findings: findings to show; default: none to three of them at random.

    Returns:
        the phantom.

    Raises:
        ValueError: a finding has an unknown name.
    """
    patient_id = patient_id or image_id
    rng, body = stream(seed, image_id, "picture"), stream(seed, patient_id, "patient")
    if findings is None:
        count = rng.choice(len(FINDING_COUNT), p=FINDING_COUNT)
        findings = [FINDINGS[i] for i in rng.permutation(len(FINDINGS))[:count]]
    wanted = set(findings)
    if wanted - set(FINDINGS):
        raise ValueError(f"unknown findings {sorted(wanted - set(FINDINGS))}; known: {', '.join(FINDINGS)}")
    large = "cardiomegaly" in wanted
    marker = str(rng.choice(["L", "R", ""], p=[0.4, 0.4, 0.2]))
    marker_x = rng.uniform(0.02, 0.06) if marker == "R" else rng.uniform(0.88, 0.92)
    phantom = Phantom(
        image_id=image_id,
        patient_id=patient_id,
        study_id=study_id or image_id,
        seed=seed,
        lesions=(),
        dx=rng.uniform(-0.07, 0.07),
        dy=rng.uniform(-0.07, 0.07),
        scale=rng.uniform(0.85, 1.12),
        angle=rng.uniform(-0.07, 0.07),
        lung_width=body.uniform(0.34, 0.385),
        diaphragm=body.uniform(0.21, 0.27),
        heart_size=body.uniform(*(HEART_LARGE if large else HEART_NORMAL)),
        heart_shift=body.uniform(-0.012, 0.02),
        gamma=rng.uniform(0.85, 1.25),
        gain=rng.uniform(0.9, 1.15),
        grain=rng.uniform(0.008, 0.025),
        marker=marker,
        marker_at=(float(marker_x), float(rng.choice([0.02, 0.9]) + rng.uniform(0.0, 0.02))),
    )
    return replace(phantom, lesions=place(phantom, wanted, rng))


def questions(phantom: Phantom) -> list[Question]:
    """All phrasings of all questions that have an answer on this phantom, in a fixed order."""
    asked = ((q, answer(q, phantom.visible, phantom.zones)) for q in every_question())
    return [replace(q, answer=text) for q, text in asked if text is not None and not _presumes_too_much(q, phantom)]


def _presumes_too_much(question: Question, phantom: Phantom) -> bool:
    """Whether a question asks where a finding is that the phantom does not have."""
    return question.topic in ("where", "side") and all(p.finding != question.finding for p in phantom.lesions)


def write(
    root: Path,
    n_patients: int,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    split: str = "test",
    pairs: bool = False,
) -> Path:
    """Write a data set: pictures, masks and manifest.

    Of four patients, one has three studies, one has two, and two have one. Each study has one picture, and each picture
    one phrasing of each of its questions.

    Args:
        root: folder to write into.
        n_patients: number of patients.
        seed: seed of the data set.
        size: height and width of the pictures.
        split: name of the split.
        pairs: also write each picture without the finding that a question asks about.

    Returns:
        path of the manifest.
    """
    phantoms = []
    for i in range(n_patients):
        patient = f"p{seed}-{i:05d}"
        for k in range(1 + (i % 2) + (i % 4 == 3)):
            study = f"{patient}-s{k}"
            phantoms.append(sample_phantom(f"{study}-i0", seed, patient, study))
    return write_samples(root, [(p, one_phrasing(p)) for p in phantoms], size=size, split=split, pairs=pairs)


def one_phrasing(phantom: Phantom) -> list[Question]:
    """One phrasing of each question about a phantom, chosen at random from the picture's name."""
    rng = stream(phantom.seed, phantom.image_id, "phrasing")
    groups: dict[str, list[Question]] = {}
    for question in questions(phantom):
        groups.setdefault(question.group, []).append(question)
    return [group[rng.integers(len(group))] for group in groups.values()]
