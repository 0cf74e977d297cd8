"""The registry, and what every method must keep: one sample's map does not depend on its batch."""

import inspect
from copy import deepcopy

import docstring_parser
import pytest
import torch

from cxr_faith.attribution import METHODS, AttributionBatch, build_methods
from cxr_faith.attribution.attention import Attention
from cxr_faith.attribution.gradients import IntegratedGradients
from cxr_faith.attribution.relevancy import Chefer
from cxr_faith.protocol import Protocol
from cxr_faith.run.method_set import MethodSet
from cxr_faith.vlm import Gemma3VLM, Target
from tests.runs import cheap_options

COMPUTED = {name: method for name, method in METHODS.items() if name != "file"}  # whose maps are made elsewhere
QUESTIONS = ("Is there a nodule?", "Is there a effusion?")


def test_registry_holds_every_method():
    names = "attention rollout chefer chefer_global gradient grad_x_input integrated_gradients igos_pp sae"
    names += " grad_cam smooth_grad tam cleann occlusion rise greedy random_map center edges oracle oracle_near file"
    names += " attention_sink_masked eagle multi_scale ensemble answer_map counterfactual"
    assert set(METHODS) == set(names.split())


def test_methods_are_built_from_names_classes_and_options():
    methods = build_methods(
        {
            "chefer": None,
            "peaked": {"class": "attention", "heads": "entropy", "renormalize": True},
            "ig": {"class": "integrated_gradients", "steps": 7, "baseline": "mean"},
        }
    )
    assert list(methods) == ["chefer", "peaked", "ig"]
    assert type(methods["chefer"]) is Chefer
    peaked, ig = methods["peaked"], methods["ig"]
    assert isinstance(peaked, Attention) and (peaked.heads, peaked.renormalize) == ("entropy", True)
    assert isinstance(ig, IntegratedGradients) and (ig.steps, ig.substrate.spec) == (7, "mean")


def test_the_old_spelling_of_renormalize_is_accepted_with_a_warning():
    message = "^attention: renormalise is now called renormalize$"
    with pytest.warns(FutureWarning, match=message) as warned:
        method = Attention(renormalise=True)
    assert len(warned) == 1 and method.renormalize is True
    with pytest.warns(FutureWarning, match=message) as warned:
        methods = build_methods({"old": {"class": "attention", "renormalise": True}, "attention": {}})
    assert len(warned) == 1 and [method.renormalize for method in methods.values()] == [True, False]
    # The options are part of a run's identity as they are spelled, so an old config still resumes its run.
    with pytest.warns(FutureWarning, match=message):
        options = MethodSet({"attention": {"renormalise": True}}, Protocol(controls="none")).options
    assert options["attention"] == {"class": "attention", "renormalise": True}


def test_every_method_says_what_it_computes_and_explains_its_options():
    for name, method in METHODS.items():
        docstring = inspect.getdoc(method)
        first = docstring.splitlines()[0]
        assert first.endswith(".") and len(first) <= 100, (name, first)
        documented = {entry.arg_name for entry in docstring_parser.parse(docstring).params}
        assert documented == set(inspect.signature(method).parameters), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chefr": {}}, "methods.chefr: no method class 'chefr'; did you mean 'chefer'?"),
        ({"mine": {"class": "rolout"}}, "methods.mine: no method class 'rolout'; did you mean 'rollout'?"),
        ({"attention": {"head": "max"}}, "methods.attention.head: not an option of attention; did you mean 'heads'?"),
        ({"center": {"sigma": 1}}, "methods.center.sigma: not an option of center"),
        (
            {"attention": {"heads": "median"}},
            "methods.attention: heads must be one of mean, max, entropy, got 'median'",
        ),
        (
            {"attention": {"layers": "deeep"}},
            "layers must be one of mean, last, deep, got 'deeep'; did you mean 'deep'?",
        ),
        (
            {"grad_cam": {"layer": "last"}},
            "methods.grad_cam: layer must be auto or the number of a decoder layer, got 'last'",
        ),
        ({"integrated_gradients": {"steps": 0}}, "methods.integrated_gradients: steps must be at least 1"),
        ({"smooth_grad": {"micro_batch": 0}}, "methods.smooth_grad: micro_batch must be at least 1, got 0"),
        ({"grad_x_input": {"baseline": "blurr"}}, "methods.grad_x_input: substrate 'blurr'"),
        ({"zzz": {}}, "methods.zzz: no method class 'zzz'; there are answer_map, attention, attention_sink_masked"),
    ],
)
def test_wrong_configs_name_the_nearest_right_word(config, message):
    with pytest.raises(ValueError) as error:
        build_methods(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(COMPUTED))
@pytest.mark.parametrize("kind", ["margin", "tokens"])
def test_maps_do_not_depend_on_the_batch(random_vlm, random_sae, pictures, name, kind):
    """Bit for bit, over batches of 1, 2 and 5 and in any order, with two questions and both answers mixed."""
    method, pixels = METHODS[name](**cheap_options(random_sae).get(name, {})), pictures(random_vlm, 5)
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


@pytest.mark.parametrize("name", sorted(set(COMPUTED) - {"oracle", "oracle_near"}))
def test_one_map_for_each_token(random_vlm, random_sae, pictures, name):
    """The same as explaining each token alone, and no two tokens share a map where the model is asked."""
    method, pixels, prompt = (
        METHODS[name](**cheap_options(random_sae).get(name, {})),
        pictures(random_vlm, 1),
        random_vlm.prompt(QUESTIONS[0]),
    )
    words = tuple(random_vlm.tokenizer("left right lung", add_special_tokens=False)["input_ids"][:3])
    batch = AttributionBatch(pixels, [prompt], ["image"], 1)
    computed = method.attribute_tokens(random_vlm, batch, [Target("tokens", "answer", 1, words, (0, 2))])
    assert len(computed) == 2
    for index, result in zip((0, 2), computed, strict=True):
        alone = method.attribute(random_vlm, batch, [Target("tokens", str(index), 1, words, (index,))]).maps
        assert (result.maps - alone).abs().max() <= 1e-4 * alone.abs().max()
    if name not in ("random_map", "center", "edges", "answer_map"):  # that one explains the question
        assert not torch.allclose(computed[0].maps, computed[1].maps, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("name", "backwards"),
    [("attention", 0), ("rollout", 0), ("tam", 0), ("chefer", 3), ("chefer_global", 3), ("gradient", 3)]
    + [("grad_x_input", 3), ("grad_cam", 3)],
)
def test_tokens_share_one_forward(random_vlm, random_sae, pictures, name, backwards):
    words = tuple(random_vlm.tokenizer("left right lung", add_special_tokens=False)["input_ids"][:3])
    batch = AttributionBatch(pictures(random_vlm, 1), [random_vlm.prompt(QUESTIONS[0])], ["image"], 1)
    before = random_vlm.counts.snapshot()
    method = METHODS[name](**cheap_options(random_sae).get(name, {}))
    method.attribute_tokens(random_vlm, batch, [Target("tokens", "answer", 1, words, (0, 1, 2))])
    after = random_vlm.counts
    assert (after.trace - before.trace, after.backward - before.backward) == (1, backwards)


@pytest.mark.parametrize("name", ["integrated_gradients", "smooth_grad", "sae", "occlusion", "rise", "cleann"])
def test_tokens_share_the_pictures_of_a_method_that_needs_many(random_vlm, random_sae, pictures, name):
    """Two tokens cost no more passes of tower and decoder than one, but for the question's own on the cache."""
    words = tuple(random_vlm.tokenizer("left right", add_special_tokens=False)["input_ids"][:2])
    batch = AttributionBatch(pictures(random_vlm, 1), [random_vlm.prompt(QUESTIONS[0])], ["image"], 1)
    method, both = (
        METHODS[name](**cheap_options(random_sae).get(name, {})),
        Target("tokens", "answer", 1, words, (0, 1)),
    )

    def cost(run):
        before = random_vlm.counts.snapshot()
        run()
        return {stage: count - vars(before)[stage] for stage, count in vars(random_vlm.counts).items()}

    one = cost(lambda: method.attribute(random_vlm, batch, [both.alone(1)]))
    two = cost(lambda: method.attribute_tokens(random_vlm, batch, [both]))
    assert two["trace"] == one["trace"] and two["backward"] == 2 * one["backward"]
    if name != "cleann":  # its sets are searched for each token
        assert (two["encode"], two["prefill"]) == (one["encode"], one["prefill"]) and two["score"] == 2 * one["score"]


def test_every_method_explains_a_model_in_bfloat16(random_vlm, random_sae, pictures):
    """Maps are float32 and finite; those that rest on one or many forward passes alone look as in float32."""
    half = Gemma3VLM(deepcopy(random_vlm.model).to(torch.bfloat16), random_vlm.processor, source="random")
    pixels, cells = pictures(random_vlm, 1), torch.rand(1, *random_vlm.grid)
    computed = {}
    for name, method in COMPUTED.items():
        made = method(**cheap_options(random_sae).get(name, {}))
        for vlm in (random_vlm, half):
            made.check(vlm)
            batch = AttributionBatch(pixels, [vlm.prompt(QUESTIONS[0])], ["image"], 1, cells)
            computed[name, vlm is half] = made.attribute(vlm, batch, [Target("margin")]).maps
        maps = computed[name, True]
        assert maps.dtype == torch.float32 and maps.isfinite().all() and maps.shape == (1, *random_vlm.grid), name
    for name in ("attention", "rollout", "chefer", "occlusion"):
        both = torch.stack([computed[name, True].flatten(), computed[name, False].flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.9, name
