"""Attribution maps from the definitions: transformers' own eager attentions, whole matrices, plain loops.

`model` is always `tests.reference.gemma.twin_model(vlm.model)`; maps are NumPy arrays [grid_h, grid_w].
"""

import numpy as np
import torch

from tests.reference import gemma


def image_tokens(model, picture):
    """Projected tokens [N, hidden] of one picture."""
    with torch.no_grad():
        return model.get_image_features(picture[None]).pooler_output[0]


def run(vlm, model, tokens, question, target):
    """Full eager forward from image tokens: (scores of each scored token, attentions, rows p - 1, image positions)."""
    ids, types = gemma.inputs(vlm, question)
    prompt_length = len(ids)
    forced = list(target.answer_ids) if target.kind == "tokens" else []
    ids, types = ids + forced, types + [0] * len(forced)
    where = [i for i, token in enumerate(ids) if token == model.config.image_token_id]
    embedded = list(model.get_input_embeddings()(torch.tensor(ids)))
    for cell, position in enumerate(where):
        embedded[position] = tokens[cell]
    output = model(
        inputs_embeds=torch.stack(embedded)[None],
        token_type_ids=torch.tensor([types]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        output_attentions=True,
        use_cache=False,
    )
    logits = output.logits[0].double()
    if target.kind == "margin":
        row = logits[prompt_length - 1]
        yes, no = (row[gemma.word_ids(vlm, word)].logsumexp(0) for word in ("yes", "no"))
        return [target.sign * (yes - no)], output.attentions, [prompt_length - 1], where
    rows = [prompt_length + index - 1 for index in target.scored]
    scores = [log_odds(logits[row], target.answer_ids[index]) for row, index in zip(rows, target.scored, strict=True)]
    return scores, output.attentions, rows, where


def log_odds(logits, gold):
    """The token's logit minus the logsumexp of all others."""
    others = torch.cat([logits[:gold], logits[gold + 1 :]])
    return logits[gold] - others.logsumexp(0)


def chefer_per_token(vlm, model, picture, question, target, layers=None, normalize_rows=False, shift=0):
    """One map for each scored token, from the full product; `shift` moves the row that is read."""
    maps = []
    for index in range(len(target.scored) if target.kind == "tokens" else 1):
        tokens = image_tokens(model, picture).requires_grad_()
        scores, attentions, rows, where = run(vlm, model, tokens, question, target)
        for attention in attentions:
            attention.retain_grad()
        scores[index].backward()
        length = attentions[0].shape[-1]
        relevancy = np.eye(length)
        for layer, attention in enumerate(attentions):
            if layers is not None and layer not in layers:
                continue
            product = (attention.grad[0].double() * attention.detach()[0].double()).numpy()
            mean = np.zeros((length, length))
            for head in product:
                mean += np.maximum(head, 0) / len(product)
            if normalize_rows:
                sums = mean.sum(1, keepdims=True)
                mean = np.divide(mean, sums, out=np.zeros_like(mean), where=sums > 0)
            relevancy = relevancy + mean @ relevancy
        maps.append(relevancy[rows[index] + shift, where].reshape(vlm.grid))
    return maps


def rollout(vlm, model, picture, question, target):
    with torch.no_grad():
        _, attentions, rows, where = run(vlm, model, image_tokens(model, picture), question, target)
    product = np.eye(attentions[0].shape[-1])
    for attention in attentions:
        mixed = 0.5 * attention[0].double().numpy().mean(0) + 0.5 * np.eye(len(product))
        mixed = mixed / mixed.sum(1, keepdims=True)
        product = mixed @ product
    return np.mean([product[row, where] for row in rows], axis=0).reshape(vlm.grid)


def _combine_heads(rows, heads):
    if heads == "mean":
        return np.mean(rows, axis=0)
    if heads == "max":
        return np.max(rows, axis=0)
    weights = []
    for row in rows:
        share = row / row.sum()
        entropy = -sum(p * np.log(p) for p in share if p > 0)
        weights.append(1 - entropy / np.log(len(row)))
    if sum(weights) == 0:
        return np.mean(rows, axis=0)
    return sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)


def attention_per_token(vlm, model, picture, question, target, heads, layers, renormalize, shift=0):
    """One map for each scored token."""
    with torch.no_grad():
        _, attentions, rows, where = run(vlm, model, image_tokens(model, picture), question, target)
    chosen = {"mean": attentions, "last": attentions[-1:], "deep": attentions[-4:]}[layers]
    maps = []
    for position in rows:
        over_layers = []
        for attention in chosen:
            image_rows = [head[position + shift, where] for head in attention[0].double().numpy()]
            if renormalize:
                image_rows = [row / row.sum() for row in image_rows]
            over_layers.append(_combine_heads(image_rows, heads))
        maps.append(np.mean(over_layers, axis=0).reshape(vlm.grid))
    return maps


def token_gradient(vlm, model, tokens, question, target):
    """(s, ds/dtokens [N, hidden]) in float64."""
    leaf = tokens.detach().clone().requires_grad_()
    scores, *_ = run(vlm, model, leaf, question, target)
    s = sum(scores) / len(scores)
    s.backward()
    return float(s.detach()), leaf.grad.double().numpy()


def gradient(vlm, model, picture, question, target):
    _, grad = token_gradient(vlm, model, image_tokens(model, picture), question, target)
    return np.sqrt((grad**2).sum(1)).reshape(vlm.grid)


def grad_x_input(vlm, model, picture, baseline_tokens, question, target):
    tokens = image_tokens(model, picture)
    _, grad = token_gradient(vlm, model, tokens, question, target)
    return (grad * (tokens - baseline_tokens).double().numpy()).sum(1).reshape(vlm.grid)


def integrated_gradients(vlm, model, picture, baseline_tokens, question, target, steps):
    """(map, completeness residual)."""
    tokens = image_tokens(model, picture)
    path = tokens - baseline_tokens
    total = np.zeros(vlm.n_cells)
    for step in range(steps):
        at = baseline_tokens + (step + 0.5) / steps * path
        total += (token_gradient(vlm, model, at, question, target)[1] * path.double().numpy()).sum(1) / steps
    intact = token_gradient(vlm, model, tokens, question, target)[0]
    effect = intact - token_gradient(vlm, model, baseline_tokens, question, target)[0]
    residual = abs(total.sum() - effect) / max(abs(effect), 0.5, 0.05 * abs(intact))
    return total.reshape(vlm.grid), residual


def image_share(vlm, model, picture, question, target):
    """Share of the attention on the image for each layer, mean over heads and scored tokens."""
    with torch.no_grad():
        _, attentions, rows, where = run(vlm, model, image_tokens(model, picture), question, target)
    shares = []
    for attention in attentions:
        heads = attention[0].double().numpy()
        shares.append(np.mean([head[row, where].sum() for head in heads for row in rows]))
    return shares


def hidden_states(vlm, model, picture, question, target=None):
    """transformers' own hidden states [L, hidden]: the embeddings, then one for each layer; the last one is normed."""
    ids, types = gemma.inputs(vlm, question)
    forced = list(target.answer_ids) if target is not None and target.kind == "tokens" else []
    output = model(
        input_ids=torch.tensor([ids + forced]),
        pixel_values=picture[None],
        token_type_ids=torch.tensor([types + [0] * len(forced)]),
        attention_mask=torch.ones(1, len(ids + forced), dtype=torch.long),
        output_hidden_states=True,
        use_cache=False,
    )
    return [state[0] for state in output.hidden_states]
