"""The registry, and what every method must keep: one sample's map does not depend on its batch."""

import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch, build_methods
from cxr_faith.attribution.attention import Attention
from cxr_faith.attribution.gradients import IntegratedGradients
from cxr_faith.attribution.relevancy import Chefer
from cxr_faith.vlm import Target

QUESTIONS = ("Is there a nodule?", "Is there a effusion?")
FEWER = {
    "integrated_gradients": {"steps": 2},
    "occlusion": {"window": 1},
    "rise": {"masks": 6},
    "smooth_grad": {"copies": 3},
}
"""Options that save time."""


def test_registry_holds_every_method():
    names = "attention rollout chefer chefer_global gradient grad_x_input integrated_gradients"
    names += " grad_cam smooth_grad tam cleann occlusion rise random_map center edges oracle"
    assert set(METHODS) == set(names.split())


def test_methods_are_built_from_names_classes_and_options():
    methods = build_methods(
        {
            "chefer": None,
            "peaked": {"class": "attention", "heads": "entropy", "renormalise": True},
            "ig": {"class": "integrated_gradients", "steps": 7, "baseline": "mean"},
        }
    )
    assert list(methods) == ["chefer", "peaked", "ig"]
    assert type(methods["chefer"]) is Chefer
    peaked, ig = methods["peaked"], methods["ig"]
    assert isinstance(peaked, Attention) and (peaked.heads, peaked.renormalise) == ("entropy", True)
    assert isinstance(ig, IntegratedGradients) and (ig.steps, ig.substrate.spec) == (7, "mean")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chefr": {}}, "methods.chefr: no method class 'chefr'; did you mean 'chefer'?"),
        ({"mine": {"class": "rolout"}}, "methods.mine: no method class 'rolout'; did you mean 'rollout'?"),
        ({"attention": {"head": "max"}}, "methods.attention.head: not an option of attention; did you mean 'heads'?"),
        ({"center": {"sigma": 1}}, "methods.center.sigma: not an option of center"),
        ({"attention": {"heads": "median"}}, "methods.attention: heads must be one of mean, max, entropy"),
        ({"integrated_gradients": {"steps": 0}}, "methods.integrated_gradients: steps must be at least 1"),
        ({"grad_x_input": {"baseline": "blurr"}}, "methods.grad_x_input: substrate 'blurr'"),
        ({"zzz": {}}, "methods.zzz: no method class 'zzz'; there are attention, center"),
    ],
)
def test_wrong_configs_name_the_nearest_right_word(config, message):
    with pytest.raises(ValueError) as error:
        build_methods(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_maps_do_not_depend_on_the_batch(random_vlm, pictures, name, kind):
    """Bit for bit, over batches of 1, 2 and 5 and in any order, with two questions and both answers mixed."""
    method, pixels = METHODS[name](**FEWER.get(name, {})), pictures(random_vlm, 5)
    prompts = [random_vlm.prompt(QUESTIONS[i % 2]) for i in range(5)]
    if kind == "margin":
        targets = [Target("margin", sign=(-1) ** i) for i in range(5)]
    else:
        words = random_vlm.tokenizer("left right lung heart nodule rib", add_special_tokens=False)["input_ids"]
        targets = [Target("tokens", answer_ids=(words[i], words[i + 1]), scored=(0, 1)) for i in range(5)]
    cells = torch.rand(5, *random_vlm.grid, generator=torch.Generator().manual_seed(0))

    def maps(chosen):
        batch = AttributionBatch(
            pixels[chosen], [prompts[i] for i in chosen], [f"image-{i}" for i in chosen], 1, cells[chosen]
        )
        return method.attribute(random_vlm, batch, [targets[i] for i in chosen]).maps

    whole = maps([0, 1, 2, 3, 4])
    for parts in ([[3], [0], [4], [2], [1]], [[4, 1], [0, 3], [2]], [[2, 4, 0, 3, 1]]):
        for part in parts:
            assert torch.equal(maps(part), whole[part])
