"""What a yes-or-no problem is: its metrics, costs and losses, and how the sample's label arises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np

MetricName = Literal[
    "accuracy", "average_precision", "brier", "f1", "log_loss", "precision", "recall", "roc_auc"
]
# plain: log loss on the rows as they are · balanced: both classes weigh the same · costs: each
# row weighs what getting it wrong costs
Loss = Literal["plain", "balanced", "costs"]
Decision = Annotated[float, Field(ge=0, le=1)]  # the score from which on it is a yes
Score = Annotated[float, Field(ge=0, le=1)]  # the probability of a yes
PROBLEM = "binary"
POSITIVE = True  # one of the label's values counts as yes
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("accuracy", "average_precision", "brier", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("precision", "recall", "roc_auc"), (0.0, 1.0)),
    "log_loss": (0.0, float("inf")),
}


class Costs(BaseModel):
    """What each kind of right and wrong decision costs, in one unit; a gain is negative."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    false_positive: Annotated[float, Field(gt=0)]
    false_negative: Annotated[float, Field(gt=0)]
    true_positive: Annotated[float, Field(le=0)]
    true_negative: Annotated[float, Field(le=0)]


def outcome(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sample's label from its hidden signal.

    Args:
        signal: standardised, higher means likelier, shape (n,).
        rng: the sample's own generator.

    Returns:
        0.0 or 1.0 by row, about 15 % ones, shape (n,).
    """
    import numpy as np  # not above: every command imports this module

    chance = 1 / (1 + np.exp(-(1.6 * signal - 2.3)))
    return (rng.random(len(signal)) < chance).astype(np.float64)
