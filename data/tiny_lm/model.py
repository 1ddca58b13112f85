"""Many small transformers as one: a stack of equal shape, data and init, each with its own learning rate.

Tiny models leave a core (or a GPU) waiting for the next call most of the time, so every operation here works on
all models of a stack at once. Their parameters are one matrix, a row a model; nothing mixes rows, so a diverged
model harms no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Shape of a decoder-only transformer: pre-norm, learned positions, GELU, untied head, no bias or gain."""

    width: int
    layers: int
    vocab: int
    seq_len: int

    @property
    def heads(self) -> int:
        """Attention heads, of 16 channels where the width allows."""
        return max(1, self.width // 16)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each weight matrix, in storage order; the embeddings come first."""
        d = self.width
        sizes = {"tokens": (self.vocab, d), "positions": (self.seq_len, d), "head": (d, self.vocab)}
        for i in range(self.layers):
            sizes |= {f"qkv{i}": (d, 3 * d), f"out{i}": (d, d), f"up{i}": (d, 4 * d), f"down{i}": (4 * d, d)}
        return sizes

    @property
    def params_embedding(self) -> int:
        """Parameters of the two embeddings and the head, which ``params`` leaves out."""
        return self.width * (2 * self.vocab + self.seq_len)

    @property
    def params(self) -> int:
        """Non-embedding parameters."""
        return 12 * self.layers * self.width**2

    @property
    def params_total(self) -> int:
        """All parameters."""
        return self.params + self.params_embedding

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token: 6 per weight of blocks and head, plus attention without its mask."""
        return 6 * (self.params + self.width * self.vocab) + 12 * self.layers * self.seq_len * self.width


def initial(shape: Shape, seed: int) -> torch.Tensor:
    """Flat initial parameters of one model, the same for every learning rate, batch and budget of a seed."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for name, (rows, columns) in shape.sizes.items():
        scale = 0.1 if name in ("tokens", "positions") else rows**-0.5
        if name.startswith(("out", "down")):
            scale /= math.sqrt(2 * shape.layers)  # keeps the residual stream's size independent of depth
        parts.append(scale * torch.randn(rows * columns, generator=generator))
    return torch.cat(parts)


def unpack(stack: torch.Tensor, shape: Shape) -> Weights:
    """Views of the stacked parameters, one (models, rows, columns) tensor a matrix."""
    sizes = shape.sizes
    # one split, whose backward is one concatenation; slicing would fill a whole matrix of zeros per weight
    parts = stack.split([rows * columns for rows, columns in sizes.values()], dim=1)
    return {name: part.unflatten(1, size) for (name, size), part in zip(sizes.items(), parts, strict=True)}


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _attention(x: torch.Tensor, w: Weights, i: int, shape: Shape) -> torch.Tensor:
    models, rows, d = x.shape
    qkv = torch.bmm(_norm(x), w[f"qkv{i}"]).view(-1, shape.seq_len, 3, shape.heads, d // shape.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.bmm(mixed.transpose(1, 2).reshape(models, rows, d), w[f"out{i}"])


def losses(stack: torch.Tensor, text: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Mean cross entropy of each model of a stack, in nats per byte.

    Parameters
    ----------
    stack : torch.Tensor
        Parameters, (models, parameters).
    text : torch.Tensor
        Bytes as integers, (sequences, seq_len + 1); all models read the same.
    shape : Shape
        Shape of the models.

    Returns
    -------
    torch.Tensor
        One loss a model.
    """
    w = unpack(stack, shape)
    models, d = stack.shape[0], shape.width
    inputs, targets = text[:, :-1].reshape(-1), text[:, 1:].reshape(-1)
    # the models' embeddings side by side: one look-up serves them all, and its backward is a fast kernel
    table = w["tokens"].transpose(0, 1).reshape(shape.vocab, models * d)
    x = F.embedding(inputs, table).view(-1, models, d).transpose(0, 1)
    x = (x.unflatten(1, (-1, shape.seq_len)) + w["positions"][:, None]).flatten(1, 2)
    for i in range(shape.layers):
        x = x + _attention(x, w, i, shape)
        x = x + torch.bmm(F.gelu(torch.bmm(_norm(x), w[f"up{i}"])), w[f"down{i}"])
    logits = torch.bmm(_norm(x), w["head"])
    each = F.cross_entropy(logits.flatten(0, 1), targets.repeat(models), reduction="none")
    return each.view(models, -1).mean(1)


def evaluate(stack: torch.Tensor, text: torch.Tensor, shape: Shape, rows: int = 64) -> torch.Tensor:
    """Loss of each model on all of a text, a few rows at a time."""
    with torch.no_grad():
        pieces = [losses(stack, piece, shape) * len(piece) for piece in text.split(rows)]
    return torch.stack(pieces).double().sum(0) / len(text)


class AdamW:
    """AdamW over a stack, with a peak learning rate a model and the gradient of each clipped to norm 1."""

    def __init__(self, stack: torch.Tensor, peak: torch.Tensor, weight_decay: float) -> None:
        self.stack, self.peak, self.decay = stack, peak[:, None], weight_decay
        self.first, self.second = torch.zeros_like(stack), torch.zeros_like(stack)
        self.betas, self.eps, self.count = (0.9, 0.99), 1e-8, 0

    def step(self, gradient: torch.Tensor, factor: float) -> None:
        """Move every model by its gradient at ``factor`` times its peak learning rate."""
        self.count += 1
        b1, b2 = self.betas
        gradient = gradient * (1 / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.first.lerp_(gradient, 1 - b1)
        self.second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        scale = self.second.sqrt().div_(math.sqrt(1 - b2**self.count)).add_(self.eps)
        rate = self.peak * factor
        with torch.no_grad():
            self.stack.mul_(1 - rate * self.decay)
            self.stack.sub_(self.first.div(scale).mul_(rate / (1 - b1**self.count)))
