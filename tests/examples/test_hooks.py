"""The GitHub Action and the pre-commit hooks: what they run, run here."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

from tests.consumers.toolbox import run
from tests.examples.kit import EXAMPLES, REPOSITORY, Example, assert_public, example
from tests.tools import missing, need

ACTION = EXAMPLES / "github-action"


def test_schemas() -> None:
    check = need("check-jsonschema")
    for schema, file in (("actions", "action.yml"), ("workflows", "workflow.yml")):
        run(check, "--builtin-schema", f"vendor.github-{schema}", ACTION / file)


def test_action(tmp_path: Path) -> None:
    """Each step as a runner does it: bash, expressions replaced, files for the outputs."""
    need("cargo-cinstall")
    yaml = _yaml()
    here = example("github-action", tmp_path)
    action = yaml.safe_load((here.folder / "action.yml").read_text())
    workflow = yaml.safe_load((here.folder / "workflow.yml").read_text())
    uses = next(s for s in workflow["jobs"]["library"]["steps"] if "with" in s)["with"]
    inputs = {name: given.get("default", "") for name, given in action["inputs"].items()}
    inputs |= uses | {"working-directory": "../demo"}
    assert inputs.keys() == action["inputs"].keys()
    names = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
    files = {name: tmp_path / name for name in names}
    env = {name: str(file) for name, file in files.items()} | {"RUNNER_TEMP": str(tmp_path)}

    def value(text: str) -> str:
        text = text.replace("${{ github.action_path }}", str(here.folder))
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], text)

    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an expression in a script is a way in for others' code"
        given = {name: value(text) for name, text in step.get("env", {}).items()}
        assert not any("${{" in text for text in given.values()), given
        script = tmp_path / "step.sh"
        script.write_text(step["run"])
        folder = value(step.get("working-directory", "."))
        here.sh(f"cd {folder} && bash --noprofile --norc -eo pipefail {script}", {**env, **given})

    library = next((here.demo / "stage/usr/lib").rglob("libdemo.a"))
    assert_public(library, here.demo / "demo.h")
    said = files["GITHUB_OUTPUT"].read_text()
    assert f"libraries<<END-OF-LIBRARIES\n{library}\nEND-OF-LIBRARIES\n" in said
    assert f"after={library.stat().st_size}\n" in said
    assert "| libdemo.a | " in files["GITHUB_STEP_SUMMARY"].read_text()
    assert action["outputs"].keys() == {"libraries", "before", "after"}


def _yaml() -> ModuleType:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        missing("PyYAML")
        raise


def test_pre_commit(tmp_path: Path) -> None:
    """A library is committed as cargo-c made it: stripped at the first run, taken at the second."""
    need("cargo-cbuild")
    need("git")
    need("pre-commit")
    here = example("pre-commit", tmp_path)
    hooks, project = tmp_path / "hooks", tmp_path / "project"
    for folder in (hooks, project / "lib", project / "include"):
        folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".pre-commit-hooks.yaml", hooks)
    revision = _commit(here, hooks)
    # `language: system`: the command that is on PATH, instead of an installation from the network.
    config = (here.folder / ".pre-commit-config.yaml").read_text()
    config = config.replace("https://github.com/OWNER/cargo-strip-hook", str(hooks))
    config = config.replace("v0.1.0", revision)
    config = re.sub(r"^( +)args:", r"\1language: system\n\1args:", config, flags=re.M)
    (project / ".pre-commit-config.yaml").write_text(config)
    here.sh("cd ../demo && cargo cbuild --release --library-type staticlib")
    built = next(here.demo.glob("target/*/release/libdemo.a"))
    shutil.copy(built, project / "lib")
    shutil.copy(here.demo / "demo.h", project / "include")
    _commit(here, project)
    env = {"PRE_COMMIT_HOME": str(tmp_path / "pre-commit"), "PRE_COMMIT_COLOR": "never"}
    go = f"cd {project} && git add -A && pre-commit run --all-files"
    first = here.sh(f"{go} || echo ended with $?", env)
    assert "files were modified by this hook" in first, first
    assert "ended with 1" in first, first
    assert_public(project / "lib/libdemo.a", project / "include/demo.h")
    second = here.sh(go, env)
    assert second.count("Passed") == 2, second
    # A library that shows too much is refused by the check alone.
    shutil.copy(built, project / "lib")
    refused = here.sh(f"{go} strip-hook-check || echo ended with $?", env)
    assert "ended with 1" in refused, refused


def _commit(here: Example, folder: Path) -> str:
    """A repository with all that is in the folder; its revision."""
    me = "-c user.name=nobody -c user.email=nobody@example.org"
    here.sh(f"cd {folder} && git init -q && git add -A && git {me} commit -qm all --no-verify")
    argv = [need("git"), "-C", folder, "rev-parse", "HEAD"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
