"""What is written down in words: what the model is for, by what right its data is here, when a pilot ends."""

from __future__ import annotations

from datetime import date

from ..settings import Settings, UserError

RIGHTS = ("owner", "licence", "consent", "purpose", "readers", "missing")


def empty_uses(settings: Settings) -> list[str]:
    """The keys of `governance.use` under which nothing stands yet."""
    return [key for key, text in settings.governance.use.model_dump().items() if text is None]


def require_rights(settings: Settings) -> None:
    """Refuse data at high risk while nobody has written down by what right it is used; the sample has no owner.

    Raises:
        UserError: naming the keys of `governance.source` that are empty.
    """
    governance = settings.governance
    if governance.risk != "high" or settings.data.source.kind == "sample":
        return
    empty = [key for key in RIGHTS if getattr(governance.source, key) is None]
    if empty:
        raise UserError(
            f"governance.source: {', '.join(empty)}: empty, and governance.risk is high: write down by what right "
            "this data is used; nothing was read"
        )


def pilot_line(settings: Settings, today: date) -> str | None:
    """How long the pilot goes on, and what decides then; None where no end is set."""
    pilot = settings.governance.pilot
    if pilot.ends is None:
        return None
    days = (pilot.ends - today).days
    when = (
        f"ends in {days:,} days" if days > 1 else ("ends tomorrow" if days == 1 else "ends today")
    )
    if days < 0:
        when = f"ended {-days:,} days ago and was not decided" if days < -1 else "ended yesterday"
    decided = [
        f"it stays if: {pilot.success}" if pilot.success else "governance.pilot.success is empty",
        f"it stops before if: {pilot.stop}" if pilot.stop else "governance.pilot.stop is empty",
    ]
    return f"The pilot {when} (governance.pilot.ends: {pilot.ends}); {'; '.join(decided)}."
