"""A folder that scores without this project: the model, its manifest, and the Python that reads rows."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .. import histories as histories_file
from .. import images as images_file
from .. import model as model_file
from ..data import parsing as parsing_file
from ..data import times as times_file
from ..model import Model, ModelError
from ..paths import BASELINE_FILE, MANIFEST_FILE, MODEL_FILE, README
from ..problem import decision as decision_file
from ..scoring import rules as rules_file
from ..settings import UserError

HERE = Path(__file__).parent
MODEL_FILES = (MODEL_FILE, BASELINE_FILE, MANIFEST_FILE)


def export(source: Path, target: Path) -> Path:
    """Write the folder; it takes its place at once, or not at all.

    Args:
        source: the folder of the model.
        target: is not there yet, or was written by this function.

    Raises:
        UserError: when the model cannot be used, a rule before it cannot be asked of its inputs, or the folder
            holds something else.
    """
    try:
        model = Model(source)
    except ModelError as error:
        raise UserError(f"{error}; nothing was exported") from None
    rules_file.check(model.types, model.classes)
    if target.exists() and not (target / "predict.py").is_file():
        raise UserError(f"{target}: is there and holds no exported model; name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    fresh.chmod(0o755)
    for name in MODEL_FILES:
        shutil.copyfile(source / name, fresh / name)
    modules = model_file, images_file, histories_file, decision_file, parsing_file, times_file
    for module in (*modules, rules_file):
        path = Path(str(module.__file__))
        shutil.copyfile(path, fresh / path.name)
    shutil.copyfile(HERE / "predict.py", fresh / "predict.py")
    (fresh / README).write_text(_readme(model), encoding="utf-8", newline="\n")
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    return target


def _readme(model: Model) -> str:
    kinds = {
        "number": "a number",
        "bool": "true or false",
        "category": "a text",
        "text": "a text of any length",
        "image": f"an image ({', '.join(images_file.FORMATS)}): its file in base64, or its path",
        "history": "a list of numbers and nulls, the latest last: `[12, null, 7.5]`",
        "time": "a time such as 2026-01-31T12:00:00Z, or seconds since 1970",
    }
    lines = [f"| `{column['name']}` | {kinds[column['type']]} |" for column in model.inputs]
    libraries = ["numpy", "onnxruntime"]
    libraries += ["pillow"] * bool(model.images) + ["tokenizers"] * bool(model.tokens)
    paths = [
        "The path of an image starts in the folder in which `predict.py` is called, and only what lies below",
        "that folder is read. An image that cannot be read ends the run, with its row and column.",
        "",
    ]
    return "\n".join(
        [
            f"# {model.name} {model.version}",
            "",
            f"A trained model that needs Python ≥ 3.11, {', '.join(libraries[:-1])} and {libraries[-1]}, and no network.",
            "",
            "```",
            f"pip install {' '.join(libraries)}",
            "python predict.py < rows.csv",
            "```",
            "",
            "Rows come as CSV with a header, as JSON, or as one JSON object a line; for each, a line of JSON",
            "comes out. From Python: `from model import Model`, then `Model(folder).score(columns)`.",
            *(
                ["`RULES` in `decision.py` name rows that are answered without the model."]
                * bool(rules_file.RULES)
            ),
            "Columns that are missing or empty count as not known:",
            "",
            "| column | value |",
            "|---|---|",
            *lines,
            "",
            *(paths if model.images else []),
            "`manifest.json` says what the model was trained on, and holds the checksums that are looked at",
            "before the model is used. `Model(folder, 'baseline.onnx')` is the simple model to fall back to.",
            "",
        ]
    )
