"""How times are written as text: the formats that `adopt` tries, and which of them a column needs."""

from __future__ import annotations

from duckdb import DuckDBPyConnection as SQL

from .schema import text

DATED = "[0-9]{1,4}[-/. ][A-Za-z0-9]+[-/. ]+[0-9]{2}|[A-Za-z]{3} [0-9]+, [0-9]{4}"
DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%d-%b-%y", "%d-%b-%Y",
        "%b %d, %Y", "%B %d, %Y")  # fmt: skip
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", "T%H:%M:%SZ", "T%H:%M:%S.%fZ",
          " %I:%M %p", " %I:%M:%S %p")  # fmt: skip
SHORT = ("%Y%m%d", "%Y-%m", "%m/%Y", "%Y%m", "%Y")  # only of the column that --time names


def formats(sql: SQL, count: int, dated: int, wanted: bool) -> tuple[tuple[str, ...], str]:
    """The formats in which the texts of the table `dates` (column x) are times, and what is in doubt.

    Args:
        count, dated: how many texts there are, and how many look like dates.
        wanted: the user says that the column holds times, so that bare years count too.
    """
    if not count or (dated < 0.9 * count and not wanted):
        return (), ""
    orders: dict[str, str] = {}
    for mark in "/.-":
        query = (
            f"SELECT count_if(CAST(split_part(x, '{mark}', 1) AS INT) > 12), "
            f"count_if(CAST(split_part(x, '{mark}', 2) AS INT) > 12), count(*) FROM "
            f"(SELECT x FROM dates WHERE regexp_matches(x, '^[0-9][0-9]?[{mark}][0-9][0-9]?[{mark}]'))"
        )
        first, second, seen = sql.execute(query).fetchall()[0]
        if seen:
            orders[mark] = "" if first == second else "day" if first > second else "month"
    known = next(filter(None, orders.values()), "day")
    pairs = [f"%d{m}%m{m}" if (o or known) == "day" else f"%m{m}%d{m}" for m, o in orders.items()]
    # Two-digit years first: %Y would take 26 for the year 26
    bases = [
        *(pair + year for year in ("%y", "%Y") for pair in pairs),
        *DAYS,
        *(SHORT if wanted else ()),
    ]
    left = count
    found: list[str] = []
    for form in (base + clock for base in bases for clock in CLOCKS):
        query = f"DELETE FROM dates WHERE try_strptime(x, {text(form)}) IS NOT NULL"
        if left and (gone := sql.execute(query).fetchall()[0][0]):
            found, left = [*found, form], left - gone
    if not found or left > 0.05 * count:
        return (), ""
    doubtful = ", ".join(f"01{mark}02{mark}…" for mark, order in orders.items() if not order)
    return tuple(found), f"{doubtful} is read {known} first, a guess" if doubtful else ""
