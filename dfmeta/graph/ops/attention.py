"""Scaled dot-product attention and rotary position embedding, as single operators (opset 23 and later)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfmeta.graph.ops.registry import Node, operator


def _stateful(node: Node) -> str:
    if any(node.inputs[4:]):
        return "a key and value cache"
    return "more outputs than the result" if any(node.outputs[1:]) else ""


def _heads(x: Tensor, count: int) -> Tensor:
    """[n, sequence, hidden] to [n, heads, sequence, hidden / heads]; four axes pass unchanged."""
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


@operator("Attention", since=23, refuse=_stateful)
def attention(node: Node, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(scale Q K' + mask) V for each head (Vaswani et al., 2017); a fully masked row gives zeros.

    Keys and values may have fewer heads than queries, each serving a group of them (Ainslie et al., 2023).
    """
    flat = query.dim() == 3
    q = _heads(query, node.int("q_num_heads", 1))
    k, v = (_heads(x, node.int("kv_num_heads", 1)) for x in (key, value))
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    root = math.sqrt(node.float("scale", 0.0) or 1 / math.sqrt(q.shape[-1]))
    scores = (q * root) @ (k * root).transpose(-1, -2)
    cap = node.float("softcap", 0.0)
    scores = cap * torch.tanh(scores / cap) if cap else scores
    y = _softmax(_masked(node, scores, mask)) @ v
    return y.transpose(1, 2).flatten(2) if flat else y


def _masked(node: Node, scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    if not node.int("is_causal", 0):
        return scores
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~allowed, -math.inf)


def _softmax(scores: Tensor) -> Tensor:
    empty = torch.isneginf(scores).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


@operator("RotaryEmbedding", since=23)
def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """Pairs of features turned by an angle that grows with position (Su et al., 2021, arXiv:2104.09864)."""
    heads = x.transpose(1, 2) if x.dim() == 4 else x.reshape(*x.shape[:2], node.int("num_heads", 1), -1)
    width = node.int("rotary_embedding_dim", 0) or heads.shape[-1]
    turned, kept = heads[..., :width], heads[..., width:]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    interleaved = bool(node.int("interleaved", 0))
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    parts = [cos * a - sin * b, sin * a + cos * b]
    rotated = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    y = torch.cat([rotated, kept], -1)
    return y.transpose(1, 2) if x.dim() == 4 else y.flatten(2)
