"""What networks learn from: labels of texts and images, or, without labels, the inputs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = np.ndarray

MOST_SHIFT = 1 / 12  # of the side, that an image is moved by
MOST_LIGHT = 0.2  # by which an image becomes lighter or darker, of white
LEAST_VIEW = 0.5  # of the side, that a view shows at least
GRAIN = 0.02  # of white, in a view


class Labels:
    """Labels as a network learns them, soft ones too.

    Args:
        y: shape (n,): numbers, brought to mean 0 and spread 1, or one of `classes`.
        classes: in order; of two, the network says the odds of the second alone. None: numbers.
    """

    def __init__(self, y: Array, classes: Array | None) -> None:
        self.is_number = classes is None
        if classes is None:
            values = ((y - y.mean()) / (y.std() or 1.0))[:, None]
        else:
            values = (y[:, None] == classes[None]).astype(np.float64)
            values = values[:, 1:] if len(classes) == 2 else values
        self.values = torch.from_numpy(values.astype(np.float32))

    def take(self, rows: Array) -> Labels:
        """The labels of some rows, in the unit of all."""
        part = copy(self)
        part.values = self.values[rows]
        return part

    @property
    def width(self) -> int:
        """How many outputs the network has."""
        return int(self.values.shape[1])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean squared error of a number, the mean log loss of classes."""
        if self.is_number:
            return functional.mse_loss(output, target)
        if self.width == 1:
            return functional.binary_cross_entropy_with_logits(output, target)
        return functional.cross_entropy(output, target)


class ImageRows:
    """Images as a network takes them.

    Args:
        images: uint8, shape (n, channels, side, side).
    """

    def __init__(self, images: Array) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def inputs(self, rows: Array) -> tuple[Tensor, ...]:
        return (torch.from_numpy(self.images[rows].astype(np.float32) / 255),)


class ImageTask(ImageRows):
    """Images and their labels.

    Args:
        images: uint8, shape (n, channels, side, side).
        ways: in which a batch's images are changed, by chance.
        mixing: of the Beta distribution that two images and their labels are mixed by (mixup, Zhang et al., 2018);
            0 for not at all.
    """

    def __init__(self, images: Array, labels: Labels, ways: Sequence[str], mixing: float) -> None:
        super().__init__(images)
        self.labels, self.ways, self.mixing = labels, ways, mixing

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        (images,) = self.inputs(rows)
        images, target = changed(images, self.ways, rng), self.labels.values[rows]
        if self.mixing:
            share, partner = float(rng.beta(self.mixing, self.mixing)), rng.permutation(len(rows))
            images = share * images + (1 - share) * images[partner]
            target = share * target + (1 - share) * target[partner]
        return (images,), target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.labels.loss(output, target)


class ViewTask(ImageRows):
    """Two views of each image, of which the network says that they belong together (SimCLR, Chen et al., 2020).

    Args:
        images: uint8, shape (n, channels, side, side).
        temperature: by which likeness is divided; the lower, the more the nearest other images count.
    """

    def __init__(self, images: Array, temperature: float) -> None:
        super().__init__(images)
        self.temperature = temperature

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        (images,) = self.inputs(rows)
        views = torch.cat([_view(images, rng), _view(images, rng)])
        n = len(rows)
        return (views,), torch.cat([torch.arange(n, 2 * n), torch.arange(n)])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        directions = functional.normalize(output, dim=1)
        likeness = directions @ directions.T / self.temperature
        itself = torch.eye(len(output), dtype=torch.bool)
        return functional.cross_entropy(likeness.masked_fill(itself, -torch.inf), target)


class TextTask:
    """Texts as the numbers of their tokens, and their labels.

    Args:
        tokens: of each of n texts, at least one.
        padding: the number that fills a shorter text.
    """

    def __init__(self, tokens: Sequence[Array], labels: Labels, padding: int) -> None:
        self.labels = labels
        self.ids, self.mask = padded(tokens, padding)

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, rows: Array) -> tuple[Tensor, ...]:
        return self.mask[rows], self.ids[rows]

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.inputs(rows), self.labels.values[rows]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.labels.loss(output, target)


class Vocabulary(NamedTuple):
    """The tokens of a tokenizer: how many, the one that fills a shorter text, the one that hides another (if there
    is one), and those that are no piece of a text, padding among them."""

    size: int
    padding: int
    hidden: int | None
    special: tuple[int, ...]


class MaskedTask:
    """Texts whose tokens are hidden here and there, and what stood there (Devlin et al., 2019).

    Of the tokens that are asked for, 80 % are hidden, 10 % are others, 10 % stay.

    Args:
        tokens: of each of n texts, at least one.
        share: of the tokens that are asked for.
    """

    def __init__(self, tokens: Sequence[Array], vocabulary: Vocabulary, share: float) -> None:
        self.ids, self.mask = padded(tokens, vocabulary.padding)
        self.vocabulary, self.share = vocabulary, share

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, rows: Array) -> tuple[Tensor, ...]:
        return self.mask[rows], self.ids[rows]

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        mask, ids = self.inputs(rows)
        chance, kind = (torch.from_numpy(rng.random(ids.shape)) for _ in range(2))
        in_question = (chance < self.share) & ~torch.isin(
            ids, torch.tensor(self.vocabulary.special)
        )
        replacements = torch.from_numpy(rng.integers(0, self.vocabulary.size, ids.shape))
        input_ids = torch.where(in_question & (kind < 0.8), self.vocabulary.hidden or 0, ids)
        input_ids = torch.where(in_question & (kind >= 0.9), replacements, input_ids)
        return (mask, input_ids), torch.where(in_question, ids, -100)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        in_question = target.flatten() != -100  # nothing may be asked for in a batch of short texts
        losses = functional.cross_entropy(
            output.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum"
        )
        return losses / in_question.sum().clamp(min=1)


def padded(tokens: Sequence[Array], padding: int) -> tuple[Tensor, Tensor]:
    """Tokens of n texts as two int64 tensors, shape (n, longest): their numbers, and 1 where there is one."""
    longest = max(map(len, tokens))
    ids = np.full((len(tokens), longest), padding, np.int64)
    mask = np.zeros((len(tokens), longest), np.int64)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)], mask[row, : len(numbers)] = numbers, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def changed(images: Tensor, ways: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Images changed by chance, each otherwise but for turns, which a batch shares.

    Args:
        images: float, 0 to 1, shape (n, channels, side, side).
        ways: shift: moved, what is uncovered being the edge · flip: mirrored left to right · turn: by right angles ·
            light: lighter or darker · noise: grain.
    """
    n, side = len(images), images.shape[-1]
    if "flip" in ways:
        mirrored = torch.from_numpy(rng.random(n) < 0.5)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if "turn" in ways:
        images = torch.rot90(images, int(rng.integers(0, 4)), (2, 3))
    if "light" in ways:
        images = images + _by_image(rng.uniform(-MOST_LIGHT, MOST_LIGHT, n))
    if "noise" in ways:
        grain = rng.normal(0, GRAIN, tuple(images.shape)).astype(np.float32)
        images = images + torch.from_numpy(grain)
    if "shift" in ways and (margin := round(side * MOST_SHIFT)):
        wide = functional.pad(images, [margin] * 4, mode="replicate")
        down, right = rng.integers(0, 2 * margin + 1, (2, n))
        images = torch.stack(
            [
                wide[i, :, y : y + side, x : x + side]
                for i, (y, x) in enumerate(zip(down, right, strict=True))
            ]
        )
    return images.clamp(0, 1)


def _view(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A part of each image as large as the image, in other light, mirrored or not."""
    n = len(images)
    zoom = rng.uniform(LEAST_VIEW, 1, n)
    moved = (1 - zoom) * rng.uniform(-1, 1, (2, n))
    sign = rng.choice([-1.0, 1.0], n)
    rows = np.zeros((n, 2, 3), np.float32)
    rows[:, 0, 0], rows[:, 1, 1], rows[:, :, 2] = sign * zoom, zoom, moved.T
    grid = functional.affine_grid(torch.from_numpy(rows), list(images.shape), align_corners=False)
    views = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    means = views.mean((1, 2, 3), keepdim=True)
    views = (views - means) * _by_image(rng.uniform(0.6, 1.4, n)) + means
    return changed(views, ("light", "noise"), rng)


def _by_image(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]
