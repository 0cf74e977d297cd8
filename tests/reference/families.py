"""Any family without tricks: the true class, one whole forward of a picture and a question, NumPy after the logits.

Pictures are uint8 arrays [H, W, 3] that go through transformers' own image processor. Nothing here uses the stages,
layouts or prompts of `cxr_faith.vlm`.
"""

import copy
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from tests.reference import cam, gemma


class Twin:
    """The same weights with eager attention, and the family's own image processor.

    Args:
        parts: of `cxr_faith.bench.family_parts`.
        marks: text that stands for the picture in a filled template, from the number of image tokens.
    """

    def __init__(self, parts, mark, written):
        config = copy.deepcopy(parts.model.config)
        self.model = type(parts.model)._from_config(config, attn_implementation="eager")
        self.model.load_state_dict(parts.model.state_dict())
        self.model.eval().requires_grad_(False)
        self.parts, self.tokenizer, self.mark, self.written = parts, parts.tokenizer, mark, written

    def pixels(self, picture):
        """What the image processor makes of a picture."""
        return dict(self.parts.images(images=[Image.fromarray(picture)], return_tensors="pt"))

    def n_tokens(self, picture):
        """Number of image tokens, from the features of the model itself."""
        return sum(len(part) for part in self.features(picture))

    def features(self, picture):
        """Projected image tokens, as the model's own method gives them."""
        with torch.no_grad():
            return list(self.model.model.get_image_features(**self.pixels(picture)).pooler_output)

    def ids(self, picture, question):
        """Token ids of the prompt."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.parts.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        text = text.replace(self.mark, self.written(self.n_tokens(picture)))
        return self.tokenizer(text)["input_ids"]

    def forward(self, picture, question, forced=(), **options):
        """The model's own output for a picture, a question and forced answer tokens; number of prompt tokens."""
        ids = self.ids(picture, question)
        whole = torch.tensor([ids + list(forced)])
        inputs = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
        image = whole == self.model.config.image_token_id
        inputs |= self.more_inputs(image.long(), len(ids))
        return self.model(**inputs, **self.pixels(picture), use_cache=False, **options), len(ids)

    def more_inputs(self, image, prompt_length):
        """Further arguments, from which positions hold the image, int64 [1, L]."""
        return {}

    def logits(self, picture, question, forced=()):
        """float64 logits [L, vocabulary], and the number of prompt tokens."""
        with torch.no_grad():
            output, length = self.forward(picture, question, forced)
        return output.logits[0].double().numpy(), length

    def score(self, vlm, picture, question, target):
        """(s, probability, standing) of one picture."""
        answer = list(target.answer_ids) if target.kind == "tokens" else []
        logits, length = self.logits(picture, question, answer)
        if target.kind == "margin":
            s = target.sign * gemma.margin(vlm, logits[length - 1])
            return s, 1 / (1 + np.exp(-s)), s
        if target.kind == "letter":
            return gemma.letter_score(vlm, logits[length - 1], target)
        log_odds, standing = [], []
        for index in target.scored:
            row, gold = logits[length + index - 1], answer[index]
            log_odds.append(row[gold] - gemma.logsumexp(np.delete(row, gold)))
            standing.append(row[gold] - np.delete(row, gold).max())
        p = 1 / (1 + np.exp(-np.array(log_odds)))
        return float(np.mean(log_odds)), float(np.mean(p)), float(np.min(standing))

    def text_score(self, vlm, question, target):
        """(s, probability, standing) of the question alone, without a picture."""

        def logits(_, question, forced=()):
            messages = [{"role": "user", "content": [{"type": "text", "text": question}]}]
            options = {"chat_template": self.parts.template, "tokenize": False, "add_generation_prompt": True}
            ids = self.tokenizer(self.tokenizer.apply_chat_template(messages, **options))["input_ids"]
            with torch.no_grad():
                output = self.model(input_ids=torch.tensor([ids + list(forced)]), use_cache=False)
            return output.logits[0].double().numpy(), len(ids)

        return Twin.score(SimpleNamespace(logits=logits), vlm, None, question, target)

    def greedy(self, picture, question, count):
        """Up to `count` tokens, one whole forward for each."""
        answer = []
        for _ in range(count):
            token = int(self.logits(picture, question, answer)[0][-1].argmax())
            if token == self.tokenizer.eos_token_id:
                break
            answer.append(token)
        return answer

    def curve(self, vlm, original, removed, order, k, question, target):
        """Deletion scores s at every step, whole pictures composed cell by cell."""
        scores = []
        for count in k:
            kept = [cell not in set(order[:count]) for cell in range(len(order))]
            planes = gemma.compose(original.transpose(2, 0, 1), removed.transpose(2, 0, 1), kept, vlm.grid)
            scores.append(self.score(vlm, np.ascontiguousarray(planes.transpose(1, 2, 0)), question, target)[0])
        return np.array(scores)

    def token_curve(self, vlm, original, removed, order, k, question, target):
        """The same where cells are exchanged among image tokens: a token stays if half of its box does."""
        each = [self.model.model.get_image_features(**self.pixels(picture)) for picture in (original, removed)]
        boxes = self.boxes(original)
        held = [on_cells([box], [1.0], vlm.grid).ravel() if box[2] > box[0] else None for box in boxes]
        scores = []
        for count in k:
            left = [cell for cell in range(len(order)) if cell not in set(order[:count])]
            mask = torch.tensor([share is None or share[left].sum() > 0.5 - 1e-9 for share in held])[:, None]
            mixed = copy.copy(each[0])
            mixed.pooler_output = _mixed(mask, *(one.pooler_output for one in each))
            if getattr(mixed, "deepstack_features", None) is not None:
                layers = zip(*(one.deepstack_features for one in each), strict=True)
                mixed.deepstack_features = [_mixed(mask, *pair) for pair in layers]
            self.model.model.get_image_features = lambda *args, mixed=mixed, **inputs: mixed
            try:
                scores.append(self.score(vlm, original, question, target)[0])
            finally:
                del self.model.model.get_image_features
        return np.array(scores)

    def rows(self, vlm, picture, question, target):
        """Rows p - 1 over image tokens, [tokens] each: mean attention, Chefer's relevancy of the margin, rollout."""
        self.model.get_input_embeddings().weight.requires_grad_(True)  # so that attentions have a graph
        output, length = self.forward(picture, question, output_attentions=True)
        row = output.logits[0, length - 1].double()
        yes, no = (row[gemma.word_ids(vlm, word)].logsumexp(0) for word in ("yes", "no"))
        attentions = output.attentions
        gradients = torch.autograd.grad(target.sign * (yes - no), attentions)
        where = [i for i, t in enumerate(self.ids(picture, question)) if t == self.model.config.image_token_id]
        relevancies, mixtures = [torch.eye(length)], [torch.eye(length)]  # what comes to each layer
        for attention, gradient, reads in zip(attentions, gradients, self.key_layers(), strict=True):
            added = (gradient * attention).clamp_min(0).mean(1)[0] @ relevancies[reads]
            relevancies.append(relevancies[-1] + added)
            mixtures.append(mixtures[-1] / 2 + attention.mean(1)[0] @ mixtures[reads] / 2)
        mean = torch.stack([a[0, :, length - 1].mean(0) for a in attentions]).mean(0)
        rows = mean[where], relevancies[-1][length - 1, where], mixtures[-1][length - 1, where]
        return [row.detach().numpy() for row in rows]

    def margin(self, vlm, picture, question):
        """The yes/no margin with its graph, and the places of the image tokens."""
        output, length = self.forward(picture, question)
        row = output.logits[0, length - 1].double()
        yes, no = (row[gemma.word_ids(vlm, word)].logsumexp(0) for word in ("yes", "no"))
        return yes - no, [i for i, t in enumerate(self.ids(picture, question)) if t == self.model.config.image_token_id]

    def gradients(self, vlm, picture, question):
        """Image tokens [tokens, channels] and the slope of the margin at them; with all that enters later layers."""
        leaves = copy.copy(self.model.model.get_image_features(**self.pixels(picture)))
        leaves.pooler_output = _leaf(leaves.pooler_output)
        parts = [leaves.pooler_output]
        if getattr(leaves, "deepstack_features", None) is not None:
            leaves.deepstack_features = [_leaf(part) for part in leaves.deepstack_features]
            parts += leaves.deepstack_features
        self.model.model.get_image_features = lambda *args, **inputs: leaves
        try:
            margin, _ = self.margin(vlm, picture, question)
        finally:
            del self.model.model.get_image_features
        flat = [[part] if isinstance(part, torch.Tensor) else list(part) for part in parts]
        slopes = iter(torch.autograd.grad(margin, [tensor for part in flat for tensor in part]))
        both = [[_rows(part), _rows([next(slopes) for _ in part])] for part in flat]
        return tuple(torch.cat(each, 1).detach().double().numpy() for each in zip(*both, strict=True))

    def smooth_grad(self, vlm, picture, noises, question):
        """Norm in each cell of the margin's mean gradient; for pixel values [1, 3, H, W], plus each noise [3, H, W]."""
        values, total = self.pixels(picture)["pixel_values"], 0.0
        for noise in noises:
            noisy = (values + noise).requires_grad_()
            self.pixels = lambda _, noisy=noisy: {"pixel_values": noisy}
            try:
                margin, _ = self.margin(vlm, picture, question)
            finally:
                del self.pixels
            total += torch.autograd.grad(margin, noisy)[0][0].double().numpy() / len(noises)
        return cam.cell_norms(total, vlm.grid)

    def grad_cam(self, vlm, picture, question, layer):
        """Mean gradient over the image tokens of a layer's output, times the output, token by token."""
        self.model.get_input_embeddings().weight.requires_grad_(True)  # so that hidden states have a graph
        kept, module = [], self.model.model.language_model.layers[layer]
        handle = module.register_forward_hook(lambda m, a, out: kept.append(out if torch.is_tensor(out) else out[0]))
        margin, where = self.margin(vlm, picture, question)
        handle.remove()
        slopes = torch.autograd.grad(margin, kept[0])[0][0, where].double().numpy()
        states = kept[0].detach()[0, where].double().numpy()
        return np.array([max(0.0, float(np.dot(slopes.mean(0), state))) for state in states])

    def key_layers(self):
        """For each decoder layer, the one whose keys and values it reads."""
        return range(len(self.model.model.language_model.layers))


def _mixed(mask, intact, substrate):
    """Features in the form that they came in, a tensor or one for each view; the mask [tokens, 1] goes through all."""
    if isinstance(intact, torch.Tensor):
        return torch.where(mask.view(*intact.shape[:-1], 1), intact, substrate)
    parts = mask.split([len(part) for part in intact])
    return tuple(torch.where(*three) for three in zip(parts, intact, substrate, strict=True))


def _leaf(features):
    """Features in the form that they came in, as leaves of a graph."""
    if isinstance(features, torch.Tensor):
        return features.detach().requires_grad_()
    return type(features)(part.detach().requires_grad_() for part in features)


def _rows(parts):
    """Features or their gradients, one row a token."""
    return torch.cat([part.flatten(0, -2) for part in parts])


def on_cells(boxes, values, grid):
    """Values of tokens on cells, split by area, with loops."""
    cells = np.zeros(grid)
    for (x1, y1, x2, y2), value in zip(boxes, values, strict=True):
        area = (x2 - x1) * (y2 - y1)
        for row in range(grid[0]):
            for column in range(grid[1]):
                width = min(x2, (column + 1) / grid[1]) - max(x1, column / grid[1])
                height = min(y2, (row + 1) / grid[0]) - max(y1, row / grid[0])
                if width > 0 and height > 0:
                    cells[row, column] += value * width * height / area
    return cells


def grid_boxes(rows, columns, left=0.0, top=0.0, right=1.0, bottom=1.0):
    """Boxes of a grid of tokens over a part of the picture, row by row."""
    width, height = (right - left) / columns, (bottom - top) / rows
    return [
        (left + c * width, top + r * height, left + (c + 1) * width, top + (r + 1) * height)
        for r in range(rows)
        for c in range(columns)
    ]


class LlavaTwin(Twin):
    """Patches in a square, nothing else."""

    def __init__(self, parts):
        super().__init__(parts, "<image>", lambda count: "<image>" * count)

    def boxes(self, picture):
        side = round(self.n_tokens(picture) ** 0.5)
        return grid_boxes(side, side)


class QwenTwin(Twin):
    """Merged patches row by row, in as many rows as the image processor says."""

    def __init__(self, parts):
        super().__init__(parts, "<|image_pad|>", lambda count: "<|image_pad|>" * count)

    def more_inputs(self, image, prompt_length):
        return {"mm_token_type_ids": image}

    def boxes(self, picture):
        _, rows, columns = self.pixels(picture)["image_grid_thw"][0].tolist()
        return grid_boxes(rows // 2, columns // 2)


def bicubic(old, new):
    """Matrix [new, old] of the bicubic filter (a = -1/2) that widens with the scale, as image libraries define it."""
    scale, matrix = old / new, np.zeros((new, old))
    for row in range(new):
        center = (row + 0.5) * scale
        for column in range(max(0, int(center - 2 * scale + 0.5)), min(old, int(center + 2 * scale + 0.5))):
            x = abs((column + 0.5 - center) / scale)
            near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
            matrix[row, column] = near if x < 1 else far if x < 2 else 0
    return matrix / matrix.sum(1, keepdims=True)


def resized(picture, height, width):
    """A picture [H, W, 3] at another size, clipped to levels but not rounded to whole ones as image libraries do."""
    rows, columns = bicubic(picture.shape[0], height), bicubic(picture.shape[1], width)
    return np.einsum("hi,wj,ijc->chw", rows, columns, picture.astype(float)).clip(0, 255)


class TiledTwin(Twin):
    """A twin with a view of the whole picture at a tile's size, from the filter itself."""

    def with_view(self, picture, views, index):
        """The views with the one of the whole picture replaced."""
        images = self.parts.images
        mean, std = (np.array(values)[:, None, None] for values in (images.image_mean, images.image_std))
        whole = torch.from_numpy((resized(picture, *views.shape[-2:]) / 255 - mean) / std).float()
        # The image processor rounds levels, twice; nothing else differs.
        assert (whole - views[index]).abs().max() < 1.5 / 255 / min(images.image_std)
        views[index] = whole


class InternVLTwin(TiledTwin):
    """Tiles of 4x4 tokens row by row, then the thumbnail."""

    def __init__(self, parts):
        super().__init__(parts, "<IMG_CONTEXT>", lambda count: "<img>" + "<IMG_CONTEXT>" * count + "</img>")

    def pixels(self, picture):
        pixels = super().pixels(picture)
        assert int(pixels.pop("num_patches")[0]) == len(pixels["pixel_values"])
        self.with_view(picture, pixels["pixel_values"], -1)
        return pixels

    def boxes(self, picture):
        rows, columns = picture.shape[0] // 32, picture.shape[1] // 32
        return [box for tile in grid_boxes(rows, columns) for box in grid_boxes(4, 4, *tile)] + grid_boxes(4, 4)


class OnevisionTwin(TiledTwin):
    """The whole view of 6x6 tokens of 5 px, then rows of tokens of two by two tiles, each with a separator."""

    def __init__(self, parts):
        super().__init__(parts, "<image>", lambda count: "<image>" * count)

    def pixels(self, picture):
        pixels = super().pixels(picture)
        self.with_view(picture, pixels["pixel_values"][0], 0)
        return {name: pixels[name] for name in ("pixel_values", "image_sizes")}

    def boxes(self, picture):
        assert picture.shape[:2] == (64, 48)  # padded by 8 px on the left and on the right
        boxes = [tuple(5 * side / 32 for side in (c, r, c + 1, r + 1)) for r in range(6) for c in range(6)]
        for row in range(12):
            top = row // 6 * 32 + row % 6 * 5
            for column in range(1, 11):  # the outermost columns lie in the padding
                left = column // 6 * 32 + column % 6 * 5 - 8
                boxes.append((max(left, 0) / 48, top / 64, min(left + 5, 48) / 48, (top + 5) / 64))
            boxes.append((0.0, 0.0, 0.0, 0.0))
        return boxes


class Gemma4Twin(Twin):
    """Pooled patches row by row, between two marks."""

    def __init__(self, parts):
        super().__init__(parts, "<|image|>", lambda count: "<|image>" + "<|image|>" * count + "<image|>")

    def pixels(self, picture):
        pixels = super().pixels(picture)
        return {name: pixels[name] for name in ("pixel_values", "image_position_ids")}

    def more_inputs(self, image, prompt_length):
        return {"mm_token_type_ids": image}

    def boxes(self, picture):
        columns, rows = (self.pixels(picture)["image_position_ids"][0].amax(0) + 1).tolist()
        return grid_boxes(rows // 2, columns // 2)

    def key_layers(self):
        """As the attention of each layer says: it shares, or it has a projection of its own."""
        last, reads = {}, []
        for index, layer in enumerate(self.model.model.language_model.layers):
            if not layer.self_attn.is_kv_shared_layer:
                last[layer.self_attn.layer_type] = index
            reads.append(last[layer.self_attn.layer_type])
        return reads


class PaliGemmaTwin(Twin):
    """Patches in a square; the prompt as the family's processor writes it."""

    def __init__(self, parts):
        super().__init__(parts, "<image>", lambda count: "<image>" * count)

    def ids(self, picture, question):
        text = self.written(self.n_tokens(picture)) + f"{self.tokenizer.bos_token}{question}\n"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def more_inputs(self, image, prompt_length):
        types = torch.zeros_like(image)
        types[:, prompt_length:] = 1
        return {"token_type_ids": types}

    def boxes(self, picture):
        return grid_boxes(8, 8)


TWINS = {
    "gemma4": Gemma4Twin,
    "llava": LlavaTwin,
    "qwen2_5_vl": QwenTwin,
    "qwen3_vl": QwenTwin,
    "internvl": InternVLTwin,
    "llava_onevision": OnevisionTwin,
    "paligemma": PaliGemmaTwin,
}
