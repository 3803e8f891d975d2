"""A model on its way to the machines that score with it, and their answers."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..model import Model, SessionChoice
from ..scoring import batch

_loaded: dict[str, Model] = {}  # by this process, a session for each model


class PackedModel(NamedTuple):
    """The files of a model's folder, which of them answers, and how ONNX Runtime runs it."""

    files: dict[str, bytes]
    file: str
    session: SessionChoice
    digest: str

    @classmethod
    def of(cls, folder: Path, file: str, session: SessionChoice) -> PackedModel:
        """A folder's files, read."""
        files = {
            path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()
        }
        digest = hashlib.sha256(repr((file, session)).encode())
        for name, content in files.items():
            digest.update(name.encode() + hashlib.sha256(content).digest())
        return cls(files, file, session, digest.hexdigest())

    def load(self) -> Model:
        """The model, loaded once by each process."""
        if self.digest not in _loaded:
            with tempfile.TemporaryDirectory() as scratch:
                for name, content in self.files.items():
                    Path(scratch, name).write_bytes(content)
                _loaded[self.digest] = Model(Path(scratch), self.file, session=self.session)
        return _loaded[self.digest]


def answers(packed: PackedModel, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `scoring.batch.answers` gives for rows, by column, shape (n,) each."""
    return batch.answers(packed.load(), columns)
