"""Networks that learn from inputs alone, without labels, as a start for those that learn from labels.

Images: SimCLR (Chen et al., 2020). Texts: masked tokens (Devlin et al., 2019).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from ..data.schema import form, masks
from ..features.catalogue import load, sources
from ..features.text import LENGTH
from ..images import pixels
from ..model import Tokens, token_reader
from ..paths import EVENTS, SPLITS
from ..settings import Feature, Settings, UserError
from .tasks import MaskedTask, ViewTask
from .training import Schedule, fit
from .vision import ConvNet, save_blocks

PROJECTED = 32  # numbers that two views are compared by
LEAST_VALUES = 20


class Pretrained(NamedTuple):
    """Of how many values a network learnt, and the mean loss of each epoch."""

    values: int
    losses: list[float]


def pretrain(settings: Settings, root: Path, name: str, folder: Path) -> Pretrained:
    """Train the network of a feature on all of its values but those of valid and test, and write it to a folder.

    Args:
        name: a feature with `encode: network`.
        folder: is written whole, or not at all; what stood there before is replaced.

    Raises:
        UserError: when there is no such feature, or too few values.
    """
    feature = settings.features.catalogue.get(name)
    if feature is None or feature.encode != "network":
        networks = [
            key for key, of in settings.features.catalogue.items() if of.encode == "network"
        ]
        named = f"those that are: {', '.join(networks)}" if networks else "none is"
        raise UserError(f"{name}: no feature with encode: network; {named}")
    column = sources(name, feature)[0]
    kind = settings.data.schema_.columns[column].type
    values = _values(root, column, kind)
    if len(values) < LEAST_VALUES:
        raise UserError(f"{name}: {len(values)} different values are too few to learn from")
    learn = _learn_images if kind == "image" else _learn_texts
    torch.manual_seed(settings.project.seed)
    losses, save = learn(settings, column, feature, values)
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return Pretrained(len(values), losses)


Learnt = tuple[list[float], Callable[[Path], None]]


def _learn_images(settings: Settings, column: str, feature: Feature, values: pd.Series) -> Learnt:
    image, of_column = settings.networks.image, form(settings.data.schema_.columns[column])
    network = ConvNet(of_column.size, of_column.channels, image.widths, PROJECTED)
    images = np.stack([pixels(value, of_column) for value in values])
    task = ViewTask(images, settings.networks.pretraining.temperature)
    losses = fit(network, task, _schedule(settings, image.batch, image.learning_rate))
    return losses, lambda folder: save_blocks(network, folder)


def _learn_texts(settings: Settings, column: str, feature: Feature, values: pd.Series) -> Learnt:
    from .language import MaskedNet, masked_model, new_tokenizer, quiet, tokenizer_of, vocabulary_of

    text, length = settings.networks.text, feature.length or LENGTH
    start = feature.encoder
    content = tokenizer_of(start) if start else new_tokenizer(values, text.vocabulary)
    read = token_reader(Tokens(column, content, length), masks(settings).get(column, ()))
    vocabulary, model = vocabulary_of(content), masked_model(start, content, length, text)
    if vocabulary.hidden is None:
        raise UserError(f"{start}: its tokenizer has no token that hides another ([MASK])")
    ids = [np.array(read(value)) for value in values]
    task = MaskedTask(ids, vocabulary, settings.networks.pretraining.masked)
    losses = fit(MaskedNet(model), task, _schedule(settings, text.batch, text.learning_rate))

    def save(folder: Path) -> None:
        with quiet():
            model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(content, encoding="utf-8")

    return losses, save


def _schedule(settings: Settings, batch: int, learning_rate: float) -> Schedule:
    """In one process: what is told apart are the images of a batch, and a share of it would tell fewer apart."""
    epochs = settings.networks.pretraining.epochs
    return Schedule(epochs, batch, learning_rate, settings.project.seed, settings.modelling.threads)


def _values(root: Path, column: str, kind: str) -> pd.Series:
    """The different values of a column in all events, with labels or without, but those of valid and test."""
    values = load(root / EVENTS, {column: kind})[column]
    held = [load(root / SPLITS[part], {column: kind})[column] for part in ("valid", "test")]
    unique = pd.Series(values[values != ""].unique())
    return unique[~unique.isin(set().union(*held))].reset_index(drop=True)
