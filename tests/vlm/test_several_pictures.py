"""Questions that show several pictures, against transformers' own forward of all of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_faith.attribution import METHODS, build_methods
from cxr_faith.attribution.base import AttributionBatch, MethodError
from cxr_faith.bench.family_makers import MAKERS
from cxr_faith.bench.family_parts import save
from cxr_faith.data.sheets import apart, together
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.orders import center_order
from cxr_faith.perturb.substrate import Substrate, compose
from cxr_faith.vlm import ModelError, Target
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.letters import letter_ids
from cxr_faith.vlm.loading import family_of, load_vlm
from tests.reference import gemma
from tests.reference.families import TWINS
from tests.runs import cheap_options

QUESTION = "Is the nodule larger than before?"
FAMILIES = [name for name in MAKERS if family_of({"model_type": name}, name).several]


def targets(vlm):
    """A margin, an answer's tokens, a letter."""
    ids = vlm.tokenizer("left lung, no effusion", add_special_tokens=False)["input_ids"][:3]
    letter = Target("letter", letters=letter_ids(vlm.tokenizer, 3), chosen=1)
    return Target("margin", sign=-1), Target("tokens", answer_ids=tuple(ids), scored=(0, 2)), letter


def several(twin_class):
    """The twin of a family whose pictures come as tuples."""

    class Several(twin_class):
        def pixels(self, pictures):
            each = [super(Several, self).pixels(picture) for picture in pictures]
            return {name: torch.cat([one[name] for one in each]) for name in each[0]}

        def ids(self, pictures, question):
            content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": question}]
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self.parts.template,
                tokenize=False,
                add_generation_prompt=True,
            )
            written = self.written(sum(map(len, self.features(pictures))) // len(pictures))
            return self.tokenizer(text.replace(self.mark, written))["input_ids"]

    return Several


class Gemma:
    """Gemma 3 by its own processor, which gets all pictures."""

    def __init__(self, vlm):
        self.vlm, self.model = vlm, gemma.twin_model(vlm.model)

    def inputs(self, pictures, question, forced=()):
        shown = [{"type": "image", "image": Image.new("RGB", self.vlm.image_size[::-1])}] * len(pictures)
        encoded = self.vlm.processor.apply_chat_template(
            [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = torch.cat([encoded["input_ids"], torch.tensor([list(forced)], dtype=torch.long)], 1)
        types = torch.nn.functional.pad(encoded["token_type_ids"], (0, len(forced)))
        return ids, types, encoded["input_ids"].shape[1]

    def ids(self, pictures, question):
        return self.inputs(pictures, question)[0][0].tolist()

    def logits(self, pictures, question, forced=()):
        ids, types, length = self.inputs(pictures, question, forced)
        with torch.no_grad():
            output = self.model(
                input_ids=ids,
                token_type_ids=types,
                attention_mask=torch.ones_like(ids),
                pixel_values=torch.stack(list(pictures)),
            )
        return output.logits[0].double().numpy(), length

    def score(self, vlm, pictures, question, target):
        return TWINS["llava"].score(self, vlm, pictures, question, target)


class Shown:
    """A model that is shown three pictures a question, its twin, and two sheets of them."""

    def __init__(self, name, folder, random_vlm, pictures):
        if name == "gemma3":
            self.one, count = random_vlm, 3
            self.twin = Gemma(random_vlm)
            self.parts = list(pictures(random_vlm, 6).split(count))
            self.given = self.parts
        else:
            made, count = MAKERS[name](), 3
            self.one = load_vlm(save(made, folder), "cpu", prompts=PromptOptions(), image_size=made.image_size)
            self.twin = several(TWINS[name])(made)
            random = np.random.default_rng(1)
            levels = random.integers(0, 256, (6, *self.one.image_size, 3)).astype(np.uint8)
            self.given = [tuple(levels[:3]), tuple(levels[3:])]
            pixels = self.one.normalize(torch.from_numpy(levels).permute(0, 3, 1, 2))
            self.parts = list(pixels.split(count))
        self.vlm = self.one.showing(count)
        self.sheets = torch.cat([together(part, count) for part in self.parts])


@pytest.fixture(scope="module", params=["gemma3", *FAMILIES])
def shown(request, tmp_path_factory, random_vlm, pictures):
    return Shown(request.param, tmp_path_factory.mktemp(request.param), random_vlm, pictures)


def test_sheets_are_pictures_one_below_the_other(shown):
    count, (height, _) = 3, shown.one.image_size
    assert shown.vlm.image_size == (count * height, shown.one.image_size[1])
    assert (shown.vlm.pictures, shown.vlm.picture_grid) == (count, shown.one.grid)
    assert torch.equal(shown.sheets[1, :, height : 2 * height], shown.parts[1][1])
    assert torch.equal(apart(shown.sheets, count), torch.cat(shown.parts))
    assert shown.vlm.showing(count) is shown.vlm and shown.vlm.showing(1) is shown.one


def test_prompts_and_scores_are_the_twins_with_and_without_a_shared_prefix(shown, monkeypatch):
    vlm = shown.vlm
    prompt = vlm.prompt(QUESTION, 3)
    assert list(prompt.ids) == shown.twin.ids(shown.given[0], QUESTION)
    assert len(prompt.image_starts) == 3
    for shares in (True, False):
        monkeypatch.setattr(vlm, "shares_prefix", shares, raising=False)
        with torch.no_grad():
            tokens = vlm.encode(shown.sheets)
            prefix = vlm.prefill(tokens)
            for target in targets(vlm):
                scores = vlm.score(prefix, prompt, target)
                expected = np.array([shown.twin.score(vlm, given, QUESTION, target) for given in shown.given])
                computed = torch.stack([scores.s, scores.probability, scores.standing], dim=1).numpy()
                assert np.abs(computed - expected).max() < 1e-4
                traced = vlm.trace(tokens, [prompt] * 2, [target] * 2).mean(1)
                assert (traced - scores.s).abs().max() < 1e-4


def test_each_picture_and_their_order_matter(shown):
    vlm, target = shown.vlm, Target("margin")
    first, other = shown.parts
    shuffled = [first, first[[1, 0, 2]], torch.cat([first[:2], other[2:]]), torch.cat([other[:1], first[1:]])]
    with torch.no_grad():
        tokens = vlm.encode(torch.cat([together(part, 3) for part in shuffled]))
        s = vlm.score(vlm.prefill(tokens), vlm.prompt(QUESTION), target).s
    assert (s[1:] - s[0]).abs().min() > 1e-4  # computed as one batch, equal inputs have equal bits


@pytest.mark.parametrize("softness", [0.0, 3.0])
def test_perturbed_sheets_are_composed_picture_by_picture_and_only_changed_ones_are_encoded(shown, softness):
    """Against the score of the sheet that is composed in pixels, each picture by itself."""
    vlm, sheet = shown.vlm, shown.sheets[0]
    removed = Substrate.parse("blur:0.2").apply(sheet[None], ["a+b+c"], 0, 3)[0]
    own, n_cells = vlm.n_cells // 3, vlm.n_cells
    masks = np.random.default_rng(0).random((4, n_cells)) < 0.5
    masks[0] = True
    masks[1, :own], masks[1, 2 * own :] = True, False  # only the second picture is a mixture
    masks[2] = False
    plan, prompt, target = Plan(n_cells), vlm.prompt(QUESTION), Target("margin")
    places = plan.add(0, masks)
    engine, before = Engine(shown.one, softness, micro_batch=4).showing(3), vlm.counts.encode
    assert engine.vlm is vlm
    [scores] = engine.run(sheet, removed, plan, [prompt], [target])
    assert vlm.counts.encode - before == 2 * 3 + 4  # both ends of each picture, and the four mixtures
    expected = []
    for mask in masks:
        parts = [
            compose(
                *(apart(x[None], 3)[k] for x in (sheet, removed)),
                torch.from_numpy(mask)[None].unflatten(1, (3, -1))[:, k],
                shown.one.grid,
                softness,
            )
            for k in range(3)
        ]
        with torch.no_grad():
            tokens = vlm.encode(together(torch.cat(parts), 3))
            expected.append(float(vlm.score(vlm.prefill(tokens), prompt, target).s))
    assert np.abs(scores.s[places].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("spec", ["blur:0.1", "mean", "zero", "noise", "road"])
def test_no_substrate_takes_from_another_picture(random_vlm, pictures, spec):
    """Another second picture leaves what stands for the cells of the first as it is."""
    substrate, parts = Substrate.parse(spec), pictures(random_vlm, 3)
    sheets = [together(parts[[0, other]], 2) for other in (1, 2)]
    ends = [apart(substrate.apply(sheet, ["a+b"], 0, 2), 2) for sheet in sheets]
    assert torch.equal(ends[0][0], ends[1][0]) and (spec == "zero" or not torch.equal(ends[0][1], ends[1][1]))
    if spec == "road":
        keep = torch.rand(2, 2 * random_vlm.n_cells, generator=torch.Generator().manual_seed(0)) > 0.5
        filled = [apart(substrate.fill(sheet[0], "a+b", 0, random_vlm.grid, 2)(keep), 2) for sheet in sheets]
        assert torch.equal(filled[0][::2], filled[1][::2]) and not torch.equal(filled[0], filled[1])


def test_every_method_maps_all_pictures_or_says_why_not(shown, random_sae):
    own = cheap_options(random_sae) | {"igos_pp": {"iterations": 2, "path_steps": 1}}
    made = [name for name in METHODS if name != "file"]  # that one reads maps
    methods = build_methods({name: {"class": name, **own.get(name, {})} for name in made})
    batch = AttributionBatch(shown.sheets[:1], [shown.vlm.prompt(QUESTION)], ["a+b+c"])
    refused = set()
    for name, method in methods.items():
        if method.needs_mask:
            continue
        try:
            maps = method.attribute(shown.vlm, batch, [Target("margin", sign=-1)]).maps
        except (ModelError, MethodError) as error:
            assert "picture" in str(error) or "tower" in str(error)
            refused.add(name)
            continue
        assert maps.shape == (1, *shown.vlm.grid) and maps.isfinite().all(), name
        parts = maps[0].unflatten(0, (3, -1))
        assert name in ("center", "cleann") or not torch.equal(parts[0], parts[1]), name
    assert refused == {"sae", "answer_map"}


def test_the_center_is_each_pictures_own(shown):
    """Cells of all pictures by the distance to the middle of their own, at ties of any picture."""
    (rows, columns), order = shown.one.grid, center_order(shown.one.grid, 0, "a", 3)
    places = [divmod(int(cell) % (rows * columns), columns) for cell in order]
    distances = [((row - (rows - 1) / 2) ** 2 + (column - (columns - 1) / 2) ** 2) ** 0.5 for row, column in places]
    assert sorted(order) == list(range(3 * rows * columns)) and distances == sorted(distances)
    nearest = sum(distance == distances[0] for distance in distances)
    assert {int(cell) // (rows * columns) for cell in order[:nearest]} == {0, 1, 2}


@pytest.mark.parametrize("name", sorted({*MAKERS} - {*FAMILIES}))
def test_families_of_single_pictures_refuse_several(name, tmp_path):
    made = MAKERS[name]()
    vlm = load_vlm(save(made, tmp_path), "cpu", prompts=PromptOptions(), image_size=made.image_size)
    with pytest.raises(ModelError, match=f"{name} model is shown one picture a question, not 2"):
        vlm.showing(2)
    assert vlm.showing(1) is vlm
