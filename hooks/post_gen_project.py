# Cookiecutter runs a copy of this from a folder of its own: find the template, hand over to bridge.py
import json
import os
import pathlib
import sys

answers = json.loads({{cookiecutter | tojson | tojson}})
near = [os.environ.get("PWD", ""), answers["_output_dir"], "/proc/%d/cwd" % os.getppid()]
for folder in near:
    repo = pathlib.Path(folder, os.path.expanduser(answers["_repo_dir"])).resolve()
    if (repo / "hooks/bridge.py").is_file() and (repo / "copier.yml").is_file():
        break
else:
    sys.exit("cannot find the template %r; give cookiecutter its full path" % answers["_repo_dir"])
sys.path.insert(0, str(repo / "hooks"))
import bridge

sys.exit(bridge.main(repo, answers, pathlib.Path.cwd()))
