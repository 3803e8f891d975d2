"""What a problem with a number for an answer is: its metrics, costs and losses, and how the sample's label arises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np

MetricName = Literal["bias", "mae", "mape", "r2", "rmse"]
# metric: the one that goals.metric asks for, the median for mae and mape, else the mean · squared:
# the mean · absolute: the median · quantile: the quantile that the costs ask for
Loss = Literal["metric", "squared", "absolute", "quantile"]
Decision = Annotated[float, Field(allow_inf_nan=False)]  # what is added to the prediction
Score = Annotated[float, Field(allow_inf_nan=False)]  # the prediction
PROBLEM = "regression"
POSITIVE = False  # no value of the label counts as yes
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("mae", "mape", "rmse"), (0.0, float("inf"))),
    "bias": (-float("inf"), float("inf")),
    "r2": (-float("inf"), 1.0),
}


class Costs(BaseModel):
    """What one unit too much and one unit too little cost, in one unit of money or utility."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    over_prediction: Annotated[float, Field(gt=0)]
    under_prediction: Annotated[float, Field(gt=0)]


def outcome(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sample's label from its hidden signal.

    Args:
        signal: standardised, higher means more, shape (n,).
        rng: the sample's own generator.

    Returns:
        a positive, right-skewed amount by row, shape (n,).
    """
    import numpy as np  # not above: every command imports this module

    return np.round(np.exp(3.4 + 0.55 * signal + 0.35 * rng.standard_normal(len(signal))), 2)
