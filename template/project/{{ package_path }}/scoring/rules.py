"""Rules before the model (`RULES` of problem/decision.py): the same for files, in the service and in the edge folder.

`export` puts this file beside the model; what it asks of rows needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    from .. import problem
    from ..model import SPACES
    from ..problem.decision import RULES, choices, headline, named
    from ..settings import UserError
except ImportError:  # in the edge folder, where the files lie beside this one
    from decision import RULES, headline, named  # type: ignore[no-redef]
    from model import SPACES  # type: ignore[no-redef]

    UserError = ValueError  # type: ignore[misc, assignment]

ANSWERED = "rule"  # stands for the model's version where a rule answered
NUMBERS = ("number", "bool", "time")

Array = np.ndarray
Columns = Mapping[str, Any]


def check(types: Mapping[str, str], classes: Sequence[str]) -> None:
    """Stop where a rule reads what the model does not, or answers what no model could.

    Args:
        types: of the model's inputs; classes: of the label, where it has several.

    Raises:
        UserError: naming the rule.
    """
    for name, (_, answer, _) in RULES.items():
        if fault := _wrong_answer(answer, classes):
            raise UserError(f"problem/decision.py: RULES: {name}: {fault}")
    held(as_arrays({key: [None] for key in types}, types), 1)


def _wrong_answer(answer: Any, classes: Sequence[str]) -> str:
    """What is wrong with a rule's answer, or nothing."""
    if answer is None:
        return ""
    if problem.LISTED:
        return "a place in a list hangs on the other rows; write None, and a person looks"
    if problem.WIDE:
        return "" if answer in classes else f"{answer!r:.80} is none of {', '.join(classes)}"
    is_yes_or_no = choices(answer) == 2
    if not isinstance(answer, (int, float)) or not math.isfinite(answer):
        return f"{answer!r:.80} is no number"
    return "answer 0.0 or 1.0" if is_yes_or_no and answer not in (0, 1) else ""


def as_arrays(columns: Columns, types: Mapping[str, str]) -> dict[str, Array]:
    """The model's inputs as rules take them, each of shape (n,): numbers, yes and no (0 and 1) and times (seconds since
    1970) as 64-bit floats, missing NaN; all else but images as texts, missing "".

    Args:
        columns: column -> n values, missing None or as above; types: of those that rules may read.
    """
    arrays: dict[str, Array] = {}
    for name, kind in types.items():
        if kind in NUMBERS:
            arrays[name] = np.array(columns[name], np.float64)
        elif kind != "image":
            arrays[name] = np.array(
                [value.strip(SPACES) if value else "" for value in columns[name]], object
            )
    return arrays


def held(columns: Mapping[str, Array], n: int) -> Array:
    """The name of the first rule that holds of each of n rows, as `as_arrays` gives them, or ""; shape (n,).

    Raises:
        UserError: when a rule cannot be asked.
    """
    names = np.full(n, "", object)
    for name, (when, _, _) in RULES.items():
        try:
            holds = np.broadcast_to(np.asarray(when(columns), bool), n)
        except Exception as error:  # whatever it is, the team wrote it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(
                f"problem/decision.py: RULES: {name}: {reason}; it may read {', '.join(columns)}"
            ) from None
        names[holds & (names == "")] = name
    return names


def answers(name: str) -> bool:
    """Whether a rule answers; else the model does, and a person looks at the row."""
    return bool(name) and RULES[name][1] is not None


def are_modelled(columns: Columns, types: Mapping[str, str]) -> Array:
    """Of which of n rows, as `as_arrays` takes them, a model is asked: no rule answers; shape (n,)."""
    names = held(as_arrays(columns, types), len(columns[next(iter(types))]))
    return np.array([not answers(name) for name in names], bool)


def answer_of(name: str, classes: Sequence[str]) -> tuple[Any, float]:
    """The score, or scores, and the decision that a rule's answer stands for."""
    answer = RULES[name][1]
    if not isinstance(answer, str):
        return float(answer), float(answer)
    return [float(c == answer) for c in classes], float(classes.index(answer))


def columns_of(name: str, classes: Sequence[str]) -> dict[str, Any]:
    """What a rule's answer puts in the place of the model's, by column: of what a rule does not say, NaN."""
    score, decided = answer_of(name, classes)
    answer = {"score": headline(score, None), "decision": named(decided, classes), "scores": score}
    return answer | dict.fromkeys(("confidence", "low", "high"), math.nan) | {"reasons": []}


def flag(name: str) -> str:
    """What the flags of a row say of the rule that holds of it."""
    return f"rule {name}: {RULES[name][2]}"
