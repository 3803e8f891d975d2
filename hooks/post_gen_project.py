# Cookiecutter runs a copy of this from a folder of its own: find the template, hand over to bridge.py.
# Tools that are built on Cookiecutter set less: then it is where they work, or is cloned anew
import json
import os
import pathlib
import subprocess
import sys
import tempfile

answers = json.loads({{cookiecutter | tojson | tojson}})
address, commit = answers.get("_template"), answers.get("_commit")
parent = "/proc/%d/cwd" % os.getppid()
near = [os.environ.get("PWD", ""), answers.get("_output_dir", ""), parent]
named = os.path.expanduser(answers.get("_repo_dir") or "")
with tempfile.TemporaryDirectory() as scratch:
    clone = pathlib.Path(scratch, "template")
    for folder in [*(pathlib.Path(path, named) for path in near if named), pathlib.Path(parent), clone]:
        if folder == clone and address and commit:
            for arguments in (["clone", "--quiet", address, folder], ["-C", folder, "checkout", "--quiet", commit]):
                subprocess.run(["git", *map(str, arguments)], stderr=subprocess.DEVNULL)
        repo = folder.resolve()
        if (repo / "hooks/bridge.py").is_file() and (repo / "copier.yml").is_file():
            break
    else:
        sys.exit("cannot find the template %r; give its full path, or use copier: uvx copier copy" % (named or address))
    sys.path.insert(0, str(repo / "hooks"))
    import bridge

    sys.exit(bridge.main(repo, answers, pathlib.Path.cwd()))
