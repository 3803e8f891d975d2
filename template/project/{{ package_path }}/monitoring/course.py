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
TWO_WEEKS, TWO_MONTHS = 14, 62  # days that two of them span
MID_MONTH = 15  # days of a month that are counted from its start; the others from its end
SIGNIFICANCE = 0.01  # p-value of a difference of two levels, over all of them and all columns
MIN_EFFECT = 0.05  # of a column's spread: a smaller difference makes no phase
MIN_ROWS = 50  # rows of the reference, below which a phase has no like
MIN_HOUR_ROWS = 5  # rows that an hour of the week would have by chance, before none means closed
MAX_DAYS = 730  # the newest, that a course is told from

Array = np.ndarray


@dataclass(frozen=True)
class Calendar:
    """Hours since 1970 (UTC) as people there live them, each of shape (hours,)."""

    day: Array  # the date, as an ordinal
    weekday: Array  # 0 Monday to 6 Sunday, 7 a given holiday
    date: Array  # of the month, 1 to 31
    days_left: Array  # days of the month after this one, 0 to 30
    hour: Array  # 0 to 23

    @classmethod
    def of(cls, hours: Array, time_zone: str, holidays: Sequence[str]) -> Calendar:
        """The calendar of a place.

        Args:
            hours: hours since 1970 (UTC), shape (hours,); each beyond 1970 to 2198 gets a 1 in every field.
            time_zone: its IANA name, as Europe/Berlin.
            holidays: dates in ISO format.
        """
        free_days = {date.fromisoformat(holiday).toordinal() for holiday in holidays}
        zone, fields = ZoneInfo(time_zone), np.ones((len(hours), 5), dtype=np.int64)
        for index, hour in enumerate(hours.tolist()):
            if not 0 <= hour < 2_000_000:  # 1970 to 2198
                continue
            local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)).astimezone(zone)
            day = local.toordinal()
            next_month = (local.replace(day=28) + timedelta(days=4)).replace(day=1)
            weekday = HOLIDAY if day in free_days else local.weekday()
            days_left = next_month.toordinal() - day - 1
            fields[index] = day, weekday, local.day, days_left, local.hour
        return cls(*fields.T)

    def month(self, from_end: bool) -> Array:
        """The position in the month, 0 to 30, shape (hours,): the date, less one.

        Args:
            from_end: after the 15th count from the month's end, of which 30 is the last day.
        """
        late = from_end & (self.date > MID_MONTH)
        return np.where(late, 30 - self.days_left, self.date - 1)


@dataclass
class Course:
    """Which phase an hour is in.

    Attributes:
        days: kind of day by weekday and position in the month, shape (8, 31); -1: never seen.
        from_end: whether positions in the month's second half count from its end.
        time_zone: IANA name of the zone whose clock the hours follow; holidays: dates in ISO format.
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
        """How many there are; 1 where all hours are alike."""
        return max(1, 1 + max(max(day_phases) for day_phases in self.hours))

    def phase(self, hours: Array) -> Array:
        """The phase of each hour since 1970 (UTC), shape (hours,); `phases` where it has no like."""
        if self.phases < 2:
            return np.zeros(len(hours), dtype=np.int64)
        distinct, inverse = np.unique(hours, return_inverse=True)
        calendar = Calendar.of(distinct, self.time_zone, self.holidays)
        kind = np.asarray(self.days)[calendar.weekday, calendar.month(self.from_end)]
        phase = np.asarray(self.hours)[kind, calendar.hour]
        return np.where((kind < 0) | (phase < 0), self.phases, phase)[inverse]

    def mix(self, window: Array, hours: Array, rows: Array, windows: int) -> Array:
        """Rows by window and phase, those without a like last, shape (windows, phases + 1).

        Args:
            window, hours, rows: of each cell its window, from 0, its hour since 1970 (UTC) and its rows,
                each of shape (cells,).
            windows: how many there are.
        """
        size = self.phases + 1
        cell = window * size + self.phase(hours)
        counts = np.bincount(cell, weights=rows, minlength=windows * size)
        return counts.reshape(windows, size)

    def waited(self, since: datetime, now: datetime) -> float:
        """Hours between two moments (UTC, without a zone of their own) in which rows usually come.

        All hours count where the course knows of no quiet ones, and in spans of more than a year.
        """
        span = (now - since).total_seconds() / 3600
        if all(self.opening) or not 0 < span < 24 * 366:
            return span
        first = int(since.replace(tzinfo=UTC).timestamp() // 3600)
        hours = np.arange(first, first + int(span) + 2)
        calendar = Calendar.of(hours, self.time_zone, self.holidays)
        ends = np.clip((hours + 1) * 3600 - since.replace(tzinfo=UTC).timestamp(), 0, span * 3600)
        counted_hours = np.diff(ends, prepend=0.0) / 3600
        # Whoever names holidays has them as quiet as a Sunday
        week = np.minimum(calendar.weekday, 6) * 24 + calendar.hour
        return float(counted_hours @ np.asarray(self.opening)[week])

    def describe(self) -> list[str]:
        """What is compared with what, a line each; none where everything is one phase."""
        if self.phases < 2:
            return []
        table, lines = np.asarray(self.days), []
        for kind, hours in enumerate(self.hours):
            of_kind = table == kind
            names = [DAYS[weekday] for weekday in np.flatnonzero(of_kind.any(axis=1))]
            positions = np.flatnonzero(of_kind.any(axis=0))
            line = ", ".join(names)
            if len(positions) < 31:
                dates = ", ".join(self._date_of(int(position)) for position in positions)
                line += f" on days {dates} of the month"
            parts = [
                " ".join(f"{hour:02}" for hour in np.flatnonzero(np.asarray(hours) == phase))
                for phase in dict.fromkeys(hours)
                if phase >= 0
            ]
            lines.append(line + (f"; hours {' | '.join(parts)}" if len(parts) > 1 else ""))
        return lines

    def _date_of(self, position: int) -> str:
        return f"{position - 31}" if self.from_end and position >= MID_MONTH else f"{position + 1}"


def merge_levels(level: Array, rows: Array, sums: Array, spread: Array) -> Array:
    """Put levels together that do not surely differ, or too little: Scheffé's test (1953), nearest first.

    Args:
        level: of each unit (a day, an hour of a day), from 0, shape (units,).
        rows: of each unit, shape (units,); sums: of features, less what is expected of the unit's
            rows, shape (units, features).
        spread: variance of a feature in one row, shape (features,).

    Returns:
        group by level, from 0, shape (levels,); -1 of a level that has no two units.
    """
    count = np.bincount(level)
    levels = np.flatnonzero(count >= 2).tolist()
    group = np.full(len(count), -1)
    used = np.isin(level, levels)
    if not levels or not used.any():
        return group
    level, rows, sums = level[used], rows[used], sums[used]
    weight = np.bincount(level, rows)[levels]
    total = np.stack([np.bincount(level, feature) for feature in sums.T], axis=1)[levels]
    index = np.searchsorted(levels, level)
    residual = sums - rows[:, None] * (total / weight[:, None])[index]
    freedom = len(rows) - len(levels)
    scatter = (residual**2 / rows[:, None]).sum(axis=0) / spread
    # Units that differ more than by chance: their own spread counts
    variance = spread * np.maximum(1.0, scatter / max(1, freedom))
    level_freedom = max(1, len(levels) - 1)
    members = [[level_code] for level_code in levels]
    while len(members) > 1:
        mean = total / weight[:, None]
        a, b = np.triu_indices(len(members), 1)
        gap = np.abs(mean[a] - mean[b])
        z2 = gap**2 / (variance * (1 / weight[a] + 1 / weight[b])[:, None])
        # Whatever groups are compared, and however they were found (Scheffé, 1953)
        p = fdtrc(level_freedom, max(1, freedom), z2 / level_freedom) * sums.shape[1]
        sure = (p < SIGNIFICANCE) & (gap >= MIN_EFFECT * np.sqrt(spread))
        near = np.where(sure.any(axis=1), np.inf, z2.max(axis=1))
        best = int(np.argmin(near))
        if not np.isfinite(near[best]):
            break
        first, second = a[best], b[best]
        members[first] += members.pop(second)
        weight[first] += weight[second]
        total[first] += total[second]
        weight, total = np.delete(weight, second), np.delete(total, second, axis=0)
    for number, merged in enumerate(sorted(members, key=min)):
        group[merged] = number
    return group


def fit(
    hours: Array,
    features: Sequence[Array],
    tested: Array,
    time_zone: str = "UTC",
    holidays: Sequence[str] = (),
) -> Course:
    """The course of the rows: which of their hours differ, and so are phases.

    Args:
        hours: of each row since 1970 (UTC), shape (rows,).
        features: what is compared, each of shape (rows,): whether a row has a level, or a number.
        tested: hours of the rows that windows are compared with; a phase with fewer than
            `MIN_ROWS` of them has no like.
        time_zone: the IANA name of the zone whose clock and calendar count.
        holidays: dates in ISO format, that are days of their own.
    """
    recent = hours > hours.max() - 24 * MAX_DAYS
    distinct, inverse = np.unique(hours[recent], return_inverse=True)
    values = [np.asarray(feature, np.float64)[recent] for feature in features]
    values = [feature for feature in values if feature.var() > 0]
    course = Course(time_zone, sorted(holidays))
    calendar = Calendar.of(distinct, time_zone, holidays)
    if len(np.unique(calendar.day[calendar.weekday == HOLIDAY])) < 2 <= 2 * len(holidays):
        course.lacks.append("of given holidays: the reference has no two of them")
        course.holidays, calendar = [], Calendar.of(distinct, time_zone, ())
    rows = np.bincount(inverse).astype(np.float64)
    course.opening = _opening(calendar, rows)
    if not values:
        return course
    spread = np.array([feature.var() for feature in values])
    sums = np.stack([np.bincount(inverse, feature) for feature in values], axis=1)
    kind = _kinds(calendar, rows, sums, spread, course)
    course.hours, phases = [], 0
    for number in range(kind.max() + 1):
        in_kind = kind == number
        one_kind = np.zeros(in_kind.sum(), int)
        group = _groups(calendar.hour[in_kind], rows[in_kind], sums[in_kind], one_kind, spread, 24)
        course.hours.append(np.where(group < 0, -1, group + phases).tolist())
        phases += group.max() + 1
    _renumber(course, np.bincount(course.phase(tested), minlength=phases + 1)[:phases])
    return course


def _groups(level: Array, rows: Array, sums: Array, kind: Array, spread: Array, size: int) -> Array:
    """Group by level beyond what the unit's kind tells, shape (size,); all 0 where levels are alike."""
    total = _summed(kind, rows, sums)
    residual = sums - rows[:, None] * (total[1] / np.maximum(total[0], 1)[:, None])[kind]
    group = merge_levels(level, rows, residual, spread)
    if group.max() < 1:  # also at levels that were not seen
        return np.zeros(size, dtype=np.int64)
    return np.append(group, np.full(size - len(group), -1))


def _summed(group: Array, rows: Array, sums: Array) -> tuple[Array, Array]:
    """Rows by group, shape (groups,), and sums by group and feature, shape (groups, features)."""
    return np.bincount(group, rows), np.stack([np.bincount(group, x) for x in sums.T], axis=1)


def _kinds(calendar: Calendar, rows: Array, sums: Array, spread: Array, course: Course) -> Array:
    """Write the kinds of day to a course; returns the kind of each hour, shape (hours,)."""
    days, first, day_index = np.unique(calendar.day, return_index=True, return_inverse=True)
    weekday, span = calendar.weekday[first], int(np.ptp(days)) + 1
    rows, sums = _summed(day_index, rows, sums)
    week, month = np.zeros(8, dtype=np.int64), np.zeros(31, dtype=np.int64)
    if span < 2:
        course.lacks.append("of the day: the reference has no two full days")
    if span >= TWO_WEEKS:
        week = _groups(weekday, rows, sums, np.zeros(len(rows), int), spread, 8)
    else:
        course.lacks.append("of the week: the reference has no two full weeks")
    kind = np.maximum(week[weekday], 0)
    if span >= TWO_MONTHS:
        best = 0.0
        for from_end in (False, True):
            level = calendar.month(from_end)[first]
            group = _groups(level, rows, sums, kind, spread, 31)
            explained = _explained(group[level], kind, rows, sums, spread)
            if explained > best:
                best, course.from_end = explained, from_end
                # A day of the month that was seen once is like most
                month = np.where(group < 0, np.bincount(group[group >= 0]).argmax(), group)
    else:
        course.lacks.append("of the month: the reference has no two full months")
    codes = np.where(week < 0, -1, week * (month.max() + 1))[:, None]
    codes = np.where(codes < 0, -1, codes + month)  # (8, 31)
    present = np.unique(codes[weekday, calendar.month(course.from_end)[first]])
    table = np.full((8, 31), -1)
    for number, code in enumerate(present[present >= 0]):
        table[codes == code] = number
    course.days = table.tolist()
    return table[calendar.weekday, calendar.month(course.from_end)]


def _explained(group: Array, kind: Array, rows: Array, sums: Array, spread: Array) -> float:
    """How much of what days differ the groups explain; 0 where there is one."""
    used = group >= 0
    if not used.any() or group.max() < 1:
        return 0.0
    total = _summed(kind, rows, sums)
    residual = sums - rows[:, None] * (total[1] / np.maximum(total[0], 1)[:, None])[kind]
    weight, part = _summed(group[used], rows[used], residual[used])
    return float((part**2 / np.maximum(weight, 1)[:, None] / spread).sum())


def _renumber(course: Course, tested: Array) -> None:
    """Number anew the phases with `MIN_ROWS` or more of the tested rows; others are written -1."""
    number = np.append(np.where(tested >= MIN_ROWS, np.cumsum(tested >= MIN_ROWS) - 1, -1), -1)
    if course.phases > 1:
        course.hours = [[int(number[phase]) for phase in hours] for hours in course.hours]
    if (tested < MIN_ROWS).any() and len(tested) > 1:
        course.lacks.append(
            f"of {(tested < MIN_ROWS).sum()} of {len(tested)} phases: the rows that windows are compared "
            f"with have fewer than {MIN_ROWS} of them"
        )


def _opening(calendar: Calendar, rows: Array) -> list[bool]:
    """By hour of the week whether there were rows, where two weeks are enough to tell."""
    week = np.bincount(np.minimum(calendar.weekday, 6) * 24 + calendar.hour, rows, 168)
    is_told = np.ptp(calendar.day) + 1 >= TWO_WEEKS and rows.sum() >= MIN_HOUR_ROWS * 168
    return (week > 0).tolist() if is_told else [True] * 168
