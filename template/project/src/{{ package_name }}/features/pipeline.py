"""From a Parquet file to the model's inputs, and from these to one matrix of numbers.

Features of like encoding share one preparation, so that the exported graph has few nodes and one
row is quick. Everything learnt here (medians, edges, categories) is learnt by `fit`, which sees
the training rows only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd

from ..settings import Feature, Settings, UserError
from .catalogue import inputs, selected, sources

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

READ = {
    "number": 'CAST("{0}" AS DOUBLE)',
    "bool": 'CAST("{0}" AS DOUBLE)',
    "category": "coalesce(\"{0}\", '')",
    "time": 'epoch("{0}")',
}


def load(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The model's inputs, in the file's row order.

    Args:
        columns: raw column -> type, as `features.catalogue.inputs` gives them.

    Returns:
        number and bool as float32 (missing NaN, beyond its range infinite), category as str
        (missing ""), time as float64 seconds since 1970 (missing NaN).

    Raises:
        UserError: when the file is not there.
    """
    if not path.is_file():
        raise UserError(f"{path} is not here: run the stages before this one (`run` does it)")
    picked = [
        READ[type_].format(name.replace('"', '""')) + f" AS c{place}"
        for place, (name, type_) in enumerate(columns.items())
    ]
    frame = duckdb.execute(f"SELECT {', '.join(picked)} FROM read_parquet(?)", [str(path)]).df()
    frame.columns = pd.Index(list(columns))
    plain = {name: np.float32 for name, type_ in columns.items() if type_ in ("number", "bool")}
    with np.errstate(over="ignore"):
        return frame.astype(plain)


def build(settings: Settings) -> ColumnTransformer:
    """The unfitted preparation of all selected features; its output is dense float32, (n, width).

    It takes what `load` gives. `get_feature_names_out` names the matrix's columns.
    """
    from sklearn.compose import ColumnTransformer

    from .encoders import ENCODERS

    kinds = inputs(settings)
    groups: dict[str, dict[str, Feature]] = {}
    for name, feature in selected(settings).items():
        group = f"crossed_{feature.encode}" if feature.cross else feature.encode
        if feature.encode == "cyclic":
            group = f"cyclic_{kinds[name]}_{feature.period}"
        groups.setdefault(group, {})[name] = feature
    return ColumnTransformer(
        [
            (
                group,
                ENCODERS[next(iter(features.values())).encode](features),
                [raw for name, feature in features.items() for raw in sources(name, feature)],
            )
            for group, features in groups.items()
        ],
        sparse_threshold=0,
        verbose_feature_names_out=False,
    )
