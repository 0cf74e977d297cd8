"""Grad-CAM, SmoothGrad and token activation maps from transformers' own forward, with plain loops."""

import numpy as np
import torch

from tests.reference import attribution, gemma


def grad_cam(vlm, model, picture, question, target, layer):
    """Through transformers' `hidden_states`: entry layer + 1 is the output of the layer."""
    tokens = attribution.image_tokens(model, picture).requires_grad_()
    kept = []
    handle = model.model.language_model.layers[layer].register_forward_hook(lambda m, a, output: kept.append(output))
    scores, _, _, where = attribution.run(vlm, model, tokens, question, target)
    handle.remove()
    gradient = torch.autograd.grad(sum(scores) / len(scores), kept[0])[0][0].double().numpy()
    states = kept[0].detach()[0].double().numpy()
    result = []
    weight = np.mean([gradient[position] for position in where], axis=0)
    for position in where:
        result.append(max(0.0, float(np.dot(weight, states[position]))))
    return np.array(result).reshape(vlm.grid)


def smooth_grad(vlm, model, picture, noises, question, target):
    """One backward to the pixels for each noisy copy; `noises` [copies, 3, H, W] is already scaled."""
    total = np.zeros(picture.shape)
    for noise in noises:
        pixels = (picture + noise).requires_grad_()
        tokens = model.get_image_features(pixels[None]).pooler_output[0]
        scores, *_ = attribution.run(vlm, model, tokens, question, target)
        total += torch.autograd.grad(sum(scores) / len(scores), pixels)[0].double().numpy() / len(noises)
    return cell_norms(total, vlm.grid)


def cell_norms(values, grid):
    """L2 norm of values [3, H, W] over the pixels of each cell."""
    height, width = values.shape[1] // grid[0], values.shape[2] // grid[1]
    result = np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            block = values[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
            result[row, column] = np.sqrt((block**2).sum())
    return result


def rank_gaussian(values):
    padded = np.pad(values, 1, mode="reflect")
    result = np.zeros(values.shape)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            window = sorted(padded[row : row + 3, column : column + 3].ravel())
            mean, std = np.mean(window), np.std(window)
            if mean == 0:
                continue
            if std <= 1e-12 * mean:
                result[row, column] = window[4]
                continue
            sigma = std / mean
            weights = [np.exp(-((rank - 4) ** 2) / (2 * sigma**2)) for rank in range(9)]
            result[row, column] = np.dot(weights, window) / sum(weights)
    return result


def least_squares_residual(values, context):
    norm = float(np.dot(context, context))
    scale = 0.0 if norm == 0 else float(np.dot(values, context)) / norm
    return np.maximum(values - scale * context, 0)


def ridge_residual(values, contexts, ridge):
    """Normal equations on the context maps that are used."""
    if not contexts:
        return np.maximum(values, 0)
    matrix = np.stack(contexts, axis=1)
    penalty = ridge * np.mean([np.dot(c, c) for c in contexts])
    weights = np.linalg.solve(matrix.T @ matrix + penalty * np.eye(len(contexts)), matrix.T @ values)
    return np.maximum(values - matrix @ weights, 0)


def _words(vlm, question, target, index):
    """(position, id) of the context words: the question's text, then the answer's earlier tokens."""
    ids, _ = gemma.inputs(vlm, question)
    begin = len(ids) - 1 - ids[::-1].index(vlm.model.config.image_token_id) + 1
    end = len(ids) - 1 - ids[::-1].index(vlm.tokenizer.convert_tokens_to_ids("<start_of_turn>"))
    words = [(place, ids[place]) for place in range(begin, end)]
    answer = target.answer_ids[:index]
    words += [(len(ids) + place, token) for place, token in enumerate(answer)]
    explained = vlm.tokenizer.decode([target.answer_ids[index]]) if target.kind == "tokens" else None
    answer_word = explained if explained is not None else ("yes" if target.sign > 0 else "no")
    kept = []
    for place, token in words:
        text = vlm.tokenizer.decode([token])
        special = token in vlm.tokenizer.all_special_ids or text.startswith("<") and text.endswith(">")
        if not special and text.strip() and text.strip().lower() != answer_word.strip().lower():
            kept.append((place, token))
    return kept, len(ids)


def tam(vlm, model, picture, question, target, index, source, layer, ridge=0.1):
    """The map of one answer token from a layer."""
    words, prompt_length = _words(vlm, question, target, index)
    if source == "attention":
        with torch.no_grad():
            _, attentions, _, where = attribution.run(
                vlm, model, attribution.image_tokens(model, picture), question, target
            )
        rows = attentions[layer][0].double().numpy().mean(0)
        contexts = [rows[place - 1, where] for place, _ in words]
        left = ridge_residual(rows[prompt_length + index - 1, where], contexts, ridge)
        return rank_gaussian(left.reshape(vlm.grid))
    with torch.no_grad():
        states = attribution.hidden_states(vlm, model, picture, question, target)
        # Entry layer + 1 is the output of a layer; the last entry is normed already.
        last = layer + 1 == len(states) - 1
        normed = states[-1].double() if last else model.model.language_model.norm(states[layer + 1]).double()
    head = model.lm_head.weight.detach().double()
    ids, _ = gemma.inputs(vlm, question)
    where = [place for place, token in enumerate(ids) if token == model.config.image_token_id]

    def read(place):
        if target.kind == "tokens":
            return float(normed[place] @ head[target.answer_ids[index]])
        return target.sign * gemma.margin(vlm, (head @ normed[place]).numpy())

    activation = np.array([max(0.0, read(place)) for place in where])
    context, total = np.zeros(len(where)), 0.0
    for place, token in words:
        relevance = max(0.0, read(place if place < prompt_length else place - 1))
        context += relevance * np.array([max(0.0, float(normed[cell] @ head[token])) for cell in where])
        total += relevance
    if total > 0:
        context /= total
    return rank_gaussian(least_squares_residual(activation, context).reshape(vlm.grid))
