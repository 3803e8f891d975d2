"""Where everything of a project lies: each path, from the project's folder, stands here and nowhere else."""

# The project's own files
SETTINGS_FILE, PROJECT_FILE, README = "params.yaml", "pyproject.toml", "README.md"
PIPELINE, PIPELINE_LOCK = "dvc.yaml", "dvc.lock"
DVC_RECORDS = (PIPELINE, PIPELINE_LOCK, ".dvc/config")
TEMPLATE_ANSWERS = ".copier-answers.yml"  # Copier writes it anew at each update
DOCUMENTS_HOME, DESIGN = "docs/index.md", "docs/design"
SITE, SITE_PAGES, PICTURES = "build/site", "build/site-pages", "reports/pictures.md"
DOSSIER = "build/dossier"
JOB_FILES = ("ops/cronjobs.yaml", "ops/jobs.yaml")  # of a scheduler, where one is chosen
ALERT_RULES, ALERT_RULE_TESTS = "ops/prometheus/rules.yml", "ops/prometheus/rules_test.yml"
SCHEMAS = "schemas"  # what each version of the schema says, in git
FORGOTTEN = "privacy/forgotten.jsonl"  # digests of those whom `collect` leaves out, in git
INCIDENTS, RUNBOOK = "governance/incidents.jsonl", "docs/runbook.md"
# What people say of rows: git keeps it, line by line
VOTES, GOLD = "labels/votes.jsonl", "labels/gold.jsonl"
OUT_OF_FOLD = "labels/out_of_fold.jsonl"  # what models that have not seen a voted row say of it
QUEUE, GUIDELINES = "labels/queue.jsonl", "labels/guidelines.md"
# Folders that DVC keeps
DATA, TRAINED, MONITORING, REPORTS = TRACKED = ("data", "models", "monitoring", "reports")

TRACKING, TRACKED_RUN = (
    "tracking",
    "tracking/sent.json",
)  # of a tracker on this machine; in neither git nor DVC

EVENTS, QUARANTINE = "data/raw/events.parquet", "data/quarantine.parquet"
LABELLED, SCORES = "data/labelled.parquet", "data/scores.parquet"
UNLABELLED = "data/unlabelled.parquet"  # where functions may label rows
SPLIT, SCRATCH = "data/split", "data/.tmp"
DVC_SCRATCH = ".dvc/tmp"
STAGE_JOURNAL = "STAGE_JOURNAL"  # variable that names a file: how each stage of a `run` ended
IMAGES_SEEN = f"{DVC_SCRATCH}/images.json"  # the fingerprint of images, and what it hangs on
SPLITS = {name: f"data/split/{name}.parquet" for name in ("train", "valid", "test")}
WEAK = "data/split/weak.parquet"  # rows that functions label, for training alone
APART = "data/split/unlabelled.parquet"  # rows without a label that models may label, for training alone
# Rows younger than a label takes that have theirs, for training alone: of train, and of valid once that is trained on
YOUNG = {name: f"data/split/young_{name}.parquet" for name in ("train", "valid")}

# What a model's folder holds; fitted: the keys of the rows that the model was fitted to
MODEL_FILE, BASELINE_FILE, MANIFEST_FILE = "model.onnx", "baseline.onnx", "manifest.json"
FITTED_FILE, REFERENCE_FILE = "fitted.parquet", "reference.parquet"
LEARNT_FILE = "learnt.parquet"  # digests of the answers that a model went on learning from
REASONS_FILE = "reasons.npz"  # by what its answers are explained; with the part analysis
# The model of the last training lies in the folder itself; those in use and its smaller copy in folders of their own
MODEL, BASELINE = "models/model.onnx", "models/baseline.onnx"
MANIFEST, FITTED = "models/manifest.json", "models/fitted.parquet"
REASONS = "models/reasons.npz"
PRODUCTION, CHALLENGER = "models/production", "models/challenger"
PREVIOUS, COMPRESSED = "models/previous", "models/compressed"
PRETRAINED = "models/pretrained"  # layers that a network learnt without labels, by feature
MODEL_POINTERS = "models/*.dvc"  # what git keeps of the folders in use
# That nothing answers any more, and why, in git; and all that there was to keep of it, by DVC
RETIRED, ARCHIVE = "models/retired.json", "models/retired"

# What the service logs and remembers, and what monitoring compares it with
PREDICTIONS, FEEDBACK = "monitoring/predictions", "monitoring/feedback"
REVIEW, REFERENCE = "monitoring/review", "monitoring/reference.parquet"
REFERENCES = "monitoring/references"  # of models that answered once, by their checksum
ROUTER_STATE = "monitoring/router.sqlite"
PREDICTION_KEY = "monitoring/prediction.key"  # holds the secret of one machine
ALERTS_SENT = "monitoring/alerts.json"  # what was sent last, by source and alarm
BACKTEST = "monitoring/backtest.parquet"
OVERSIGHT, APPEALS = "monitoring/oversight.jsonl", "monitoring/appeals.jsonl"  # what people did
OVERSIGHT_DRILLS = "monitoring/drills.jsonl"  # of it, that worked


def report_path(name: str) -> str:
    """The report of a stage or command, as a path from the project's folder."""
    return f"{REPORTS}/{name}.json"


INPUTS, COLLECT_REPORT, LABEL_REPORT = map(report_path, ("inputs", "collect", "label"))
CANDIDATES, METRICS_REPORT, GATE = map(report_path, ("candidates", "metrics", "gate"))
GOVERNANCE = report_path("governance")
COMPARE, RETRAIN, EXPERIMENT = map(report_path, ("compare", "retrain", "experiment"))
MONITOR_REPORT, READINESS = report_path("monitor"), report_path("readiness")
BOM = report_path("bom")
COMPRESSION, BENCH, CURVES = map(report_path, ("compression", "bench", "curves"))
ASSUMPTIONS, IMPORTANCE_PICTURE = report_path("assumptions"), "reports/importance.png"
TUNING_LOG, TUNING_PICTURE = "data/tuning.log", "reports/tuning.png"
LABELLING, LABEL_AUDIT = report_path("labelling"), "reports/label_audit.csv"
CONSENSUS, LABELLERS_PICTURE = "reports/consensus.csv", "reports/labellers.png"
FUNCTIONS, LABEL_SOURCES = map(report_path, ("label_functions", "label_sources"))
RESPONSES, RESPONSES_PICTURE = report_path("responses"), "reports/responses.png"
MODEL_CARD, DATA_CARD = "reports/model_card.md", "reports/data_card.md"
BOARD, BOARD_PICTURE = "reports/board.html", "reports/board.png"
COMPARE_PAGE, PLOTS = "reports/compare.md", "reports/plots"
MONITOR_PAGE, MONITOR_METRICS = "reports/monitor.html", "reports/monitor.prom"
BENCH_PICTURE, CURVES_PICTURE = "reports/bench.png", "reports/curves.png"
