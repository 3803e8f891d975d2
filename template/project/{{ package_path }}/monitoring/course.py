"""The course of the day, the week and the month, so that a window is compared with its like.

Hours fall into phases: the hours of kinds of day that surely differ. Which do is told by the rows
themselves, by an analysis of variance: levels (hours, weekdays, days of the month) are put together until
all that are left surely differ (Scheffé, 1953); what differs from one day to the next within a level is
chance. A course is only kept where two full cycles of it were seen; rows that come the same all week have
one phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from scipy.special import fdtrc

HOLIDAY = 7  # the level of given holidays, after the weekdays
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "holidays")
WEEK, MONTH = 14, 62  # days that two of them span
MIDDLE = 15  # days of a month that are counted from its start; the others from its end
SURE = 0.01  # how unlikely a difference of two levels must be, over all of them and all columns
LEAST = 0.05  # of a column's spread: a smaller difference makes no phase
FEW = 50  # rows of the reference, below which a phase has no like
OPEN = 5  # rows that an hour of the week would have by chance, before none means closed
MOST_DAYS = 730  # the newest, that a course is told from

Array = np.ndarray


@dataclass(frozen=True)
class Calendar:
    """Hours since 1970 (UTC) as people there live them, each of shape (hours,)."""

    day: Array  # the date, as an ordinal
    weekday: Array  # 0 Monday to 6 Sunday, 7 a given holiday
    date: Array  # of the month, 1 to 31
    left: Array  # days of the month after this one, 0 to 30
    hour: Array  # 0 to 23

    @classmethod
    def of(cls, hours: Array, time_zone: str, holidays: Sequence[str]) -> Calendar:
        """Args: hours: shape (hours,), of any calendar; what lies beyond it is its first day."""
        free = {date.fromisoformat(one).toordinal() for one in holidays}
        zone, found = ZoneInfo(time_zone), np.ones((len(hours), 5), dtype=np.int64)
        for place, one in enumerate(hours.tolist()):
            if not 0 <= one < 2_000_000:  # 1970 to 2198
                continue
            local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=one)).astimezone(zone)
            day = local.toordinal()
            left = (local.replace(day=28) + timedelta(days=4)).replace(day=1).toordinal() - day - 1
            weekday = HOLIDAY if day in free else local.weekday()
            found[place] = day, weekday, local.day, left, local.hour
        return cls(*found.T)

    def month(self, from_end: bool) -> Array:
        """The place in the month, 0 to 30: by the date, or after the 15th by the days that are left."""
        late = from_end & (self.date > MIDDLE)
        return np.where(late, 30 - self.left, self.date - 1)


@dataclass
class Course:
    """Which phase an hour is in.

    Attributes:
        days: kind of day by weekday and place in the month, shape (8, 31); -1: never seen.
        from_end: whether places in the month's second half count from its end.
        hours: phase by kind of day and hour, shape (kinds, 24); -1: too few rows, or none.
        opening: by hour of the week from Monday on, whether anything happens then, shape (168,).
        lacks: which courses could not be told, and why, in words.
    """

    time_zone: str = "UTC"
    holidays: list[str] = field(default_factory=list)
    days: list[list[int]] = field(default_factory=lambda: [[0] * 31] * 8)
    hours: list[list[int]] = field(default_factory=lambda: [[0] * 24])
    from_end: bool = False
    opening: list[bool] = field(default_factory=lambda: [True] * 168)
    lacks: list[str] = field(default_factory=list)

    @property
    def phases(self) -> int:
        return max(1, 1 + max(max(one) for one in self.hours))

    def phase(self, hours: Array) -> Array:
        """The phase of each hour since 1970 (UTC), shape (hours,); `phases` where it has no like."""
        if self.phases < 2:
            return np.zeros(len(hours), dtype=np.int64)
        known, place = np.unique(hours, return_inverse=True)
        at = Calendar.of(known, self.time_zone, self.holidays)
        kind = np.asarray(self.days)[at.weekday, at.month(self.from_end)]
        found = np.asarray(self.hours)[kind, at.hour]
        return np.where((kind < 0) | (found < 0), self.phases, found)[place]

    def mix(self, window: Array, hours: Array, rows: Array, windows: int) -> Array:
        """Rows by window and phase, those without a like last, shape (windows, phases + 1)."""
        size = self.phases + 1
        place = window * size + self.phase(hours)
        counts = np.bincount(place, weights=rows, minlength=windows * size)
        return counts.reshape(windows, size)

    def waited(self, since: datetime, now: datetime) -> float:
        """Hours between two moments (UTC) in which something usually happens."""
        span = (now - since).total_seconds() / 3600
        if all(self.opening) or not 0 < span < 24 * 366:
            return span
        first = int(since.replace(tzinfo=UTC).timestamp() // 3600)
        hours = np.arange(first, first + int(span) + 2)
        at = Calendar.of(hours, self.time_zone, self.holidays)
        ends = np.clip((hours + 1) * 3600 - since.replace(tzinfo=UTC).timestamp(), 0, span * 3600)
        each = np.diff(ends, prepend=0.0) / 3600
        # Whoever names holidays has them as quiet as a Sunday
        week = np.minimum(at.weekday, 6) * 24 + at.hour
        return float(each @ np.asarray(self.opening)[week])

    def words(self) -> list[str]:
        """What is compared with what, a line each; none where everything is one phase."""
        if self.phases < 2:
            return []
        table, lines = np.asarray(self.days), []
        for kind, hours in enumerate(self.hours):
            where = table == kind
            names = [DAYS[one] for one in np.flatnonzero(where.any(axis=1))]
            places = np.flatnonzero(where.any(axis=0))
            said = ", ".join(names)
            if len(places) < 31:
                said += f" on days {', '.join(self._date(int(one)) for one in places)} of the month"
            parts = [
                " ".join(f"{hour:02}" for hour in np.flatnonzero(np.asarray(hours) == one))
                for one in dict.fromkeys(hours)
                if one >= 0
            ]
            lines.append(said + (f"; hours {' | '.join(parts)}" if len(parts) > 1 else ""))
        return lines

    def _date(self, month: int) -> str:
        return f"{month - 31}" if self.from_end and month >= MIDDLE else f"{month + 1}"


def alike(level: Array, rows: Array, sums: Array, spread: Array) -> Array:
    """Put levels together that do not surely differ, or too little.

    Args:
        level: of each unit (a day, an hour of a day), from 0, shape (units,).
        rows: of each unit, shape (units,); sums: of features, less what is expected of the unit's
            rows, shape (units, features).
        spread: variance of a feature in one row, shape (features,).

    Returns:
        group by level, from 0, shape (levels,); -1 of a level that has no two units.
    """
    count = np.bincount(level)
    many = [one for one in range(len(count)) if count[one] >= 2]
    group = np.full(len(count), -1)
    used = np.isin(level, many)
    if not many or not used.any():
        return group
    level, rows, sums = level[used], rows[used], sums[used]
    weight = np.bincount(level, rows)[many]
    total = np.stack([np.bincount(level, one) for one in sums.T], axis=1)[many]
    place = np.searchsorted(many, level)
    rest = sums - rows[:, None] * (total / weight[:, None])[place]
    freedom = len(rows) - len(many)
    scatter = (rest**2 / rows[:, None]).sum(axis=0) / spread
    # Units that differ more than by chance: their own spread counts
    variance = spread * np.maximum(1.0, scatter / max(1, freedom))
    levels = max(1, len(many) - 1)
    members = [[one] for one in many]
    while len(members) > 1:
        mean = total / weight[:, None]
        a, b = np.triu_indices(len(members), 1)
        gap = np.abs(mean[a] - mean[b])
        z2 = gap**2 / (variance * (1 / weight[a] + 1 / weight[b])[:, None])
        # Whatever groups are compared, and however they were found (Scheffé, 1953)
        p = fdtrc(levels, max(1, freedom), z2 / levels) * sums.shape[1]
        sure = (p < SURE) & (gap >= LEAST * np.sqrt(spread))
        near = np.where(sure.any(axis=1), np.inf, z2.max(axis=1))
        best = int(np.argmin(near))
        if not np.isfinite(near[best]):
            break
        one, other = a[best], b[best]
        members[one] += members.pop(other)
        weight[one] += weight[other]
        total[one] += total[other]
        weight, total = np.delete(weight, other), np.delete(total, other, axis=0)
    for number, some in enumerate(sorted(members, key=min)):
        group[some] = number
    return group


def fit(
    hours: Array,
    features: Sequence[Array],
    tested: Array,
    time_zone: str = "UTC",
    holidays: Sequence[str] = (),
) -> Course:
    """Tell the phases from rows.

    Args:
        hours: of each row since 1970 (UTC), shape (rows,).
        features: what is compared, each of shape (rows,): whether a row has a level, or a number.
        tested: hours of the rows that windows are compared with; a phase with few of them has no like.
    """
    kept = hours > hours.max() - 24 * MOST_DAYS
    known, place = np.unique(hours[kept], return_inverse=True)
    values = [np.asarray(one, np.float64)[kept] for one in features]
    values = [one for one in values if one.var() > 0]
    course = Course(time_zone, sorted(holidays))
    at = Calendar.of(known, time_zone, holidays)
    if len(np.unique(at.day[at.weekday == HOLIDAY])) < 2 <= 2 * len(holidays):
        course.lacks.append("of given holidays: the reference has no two of them")
        course.holidays, at = [], Calendar.of(known, time_zone, ())
    rows = np.bincount(place).astype(np.float64)
    course.opening = _opening(at, rows)
    if not values:
        return course
    spread = np.array([one.var() for one in values])
    sums = np.stack([np.bincount(place, one) for one in values], axis=1)
    kind = _kinds(at, rows, sums, spread, course)
    course.hours, phases = [], 0
    for one in range(kind.max() + 1):
        mine = kind == one
        group = _groups(
            at.hour[mine], rows[mine], sums[mine], np.zeros(mine.sum(), int), spread, 24
        )
        course.hours.append(np.where(group < 0, -1, group + phases).tolist())
        phases += group.max() + 1
    _keep(course, np.bincount(course.phase(tested), minlength=phases + 1)[:phases])
    return course


def _groups(level: Array, rows: Array, sums: Array, kind: Array, spread: Array, size: int) -> Array:
    """Group by level beside what the kind tells, shape (size,); all 0 where all levels are alike."""
    total = _gathered(kind, rows, sums)
    rest = sums - rows[:, None] * (total[1] / np.maximum(total[0], 1)[:, None])[kind]
    group = alike(level, rows, rest, spread)
    if group.max() < 1:  # also at levels that were not seen
        return np.zeros(size, dtype=np.int64)
    return np.append(group, np.full(size - len(group), -1))


def _gathered(place: Array, rows: Array, sums: Array) -> tuple[Array, Array]:
    """Rows and sums of units that belong together."""
    return np.bincount(place, rows), np.stack([np.bincount(place, one) for one in sums.T], axis=1)


def _kinds(at: Calendar, rows: Array, sums: Array, spread: Array, course: Course) -> Array:
    """Write the kinds of day to a course; returns the kind of each hour, shape (hours,)."""
    days, first, place = np.unique(at.day, return_index=True, return_inverse=True)
    weekday, span = at.weekday[first], int(np.ptp(days)) + 1
    rows, sums = _gathered(place, rows, sums)
    week, month = np.zeros(8, dtype=np.int64), np.zeros(31, dtype=np.int64)
    if span < 2:
        course.lacks.append("of the day: the reference has no two full days")
    if span >= WEEK:
        week = _groups(weekday, rows, sums, np.zeros(len(rows), int), spread, 8)
    else:
        course.lacks.append("of the week: the reference has no two full weeks")
    kind = np.maximum(week[weekday], 0)
    if span >= MONTH:
        most = 0.0
        for from_end in (False, True):
            level = at.month(from_end)[first]
            group = _groups(level, rows, sums, kind, spread, 31)
            told = _told(group[level], kind, rows, sums, spread)
            if told > most:
                most, course.from_end = told, from_end
                # A day of the month that was seen once is like most
                month = np.where(group < 0, np.bincount(group[group >= 0]).argmax(), group)
    else:
        course.lacks.append("of the month: the reference has no two full months")
    pair = np.where(week < 0, -1, week * (month.max() + 1))[:, None]
    pair = np.where(pair < 0, -1, pair + month)  # (8, 31)
    seen = np.unique(pair[weekday, at.month(course.from_end)[first]])
    table = np.full((8, 31), -1)
    for number, one in enumerate(seen[seen >= 0]):
        table[pair == one] = number
    course.days = table.tolist()
    return table[at.weekday, at.month(course.from_end)]


def _told(group: Array, kind: Array, rows: Array, sums: Array, spread: Array) -> float:
    """How much of what days differ the groups explain; 0 where there is one."""
    used = group >= 0
    if not used.any() or group.max() < 1:
        return 0.0
    total = _gathered(kind, rows, sums)
    rest = sums - rows[:, None] * (total[1] / np.maximum(total[0], 1)[:, None])[kind]
    weight, part = _gathered(group[used], rows[used], rest[used])
    return float((part**2 / np.maximum(weight, 1)[:, None] / spread).sum())


def _keep(course: Course, tested: Array) -> None:
    """Number anew the phases that have enough of the rows that windows are compared with."""
    number = np.append(np.where(tested >= FEW, np.cumsum(tested >= FEW) - 1, -1), -1)
    if course.phases > 1:
        course.hours = [[int(number[one]) for one in hours] for hours in course.hours]
    if (tested < FEW).any() and len(tested) > 1:
        course.lacks.append(
            f"of {(tested < FEW).sum()} of {len(tested)} phases: the rows that windows are compared "
            f"with have fewer than {FEW} of them"
        )


def _opening(at: Calendar, rows: Array) -> list[bool]:
    """By hour of the week whether there were rows, where two weeks are enough to tell."""
    week = np.bincount(np.minimum(at.weekday, 6) * 24 + at.hour, rows, 168)
    told = np.ptp(at.day) + 1 >= WEEK and rows.sum() >= OPEN * 168
    return (week > 0).tolist() if told else [True] * 168
