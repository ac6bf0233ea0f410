"""Parts of pages that are made from the program itself when the documentation is built.

A page says `<!-- made: NAME -->` where the part belongs.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cargo_strip_hook"
sys.path.insert(0, str(ROOT))

from cargo_strip_hook.cli.parser import COMMANDS  # noqa: E402
from cargo_strip_hook.cli.reference import Option, reference  # noqa: E402


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for each page."""
    return re.sub(r"<!-- made: (\w+) -->", lambda m: MADE[m[1]](), markdown)


def _options() -> str:
    """Each command and each option, from the parsers."""
    told = reference()
    lines = ["## Commands", ""]
    for command in told.commands:
        lines += [f"### {_code(command.name or 'no command')} {{ #{command.name or 'bare'} }}", ""]
        lines += [_code(command.usage), "", *command.description.splitlines(), ""]
        lines += _table(command.own)
        if command.groups:
            links = (f"[{title}](#{_anchor(title)})" for title in command.groups)
            lines += [f"Besides: {', '.join(links)}.", ""]
    lines += [f"### {_code('help')}", "", f"{COMMANDS['help']}.", ""]
    for group in told.groups:
        lines += [f"## {_capital(group.title)} {{ #{_anchor(group.title)} }}", ""]
        lines += _table(group.options)
    return "\n".join(lines)


def _table(options: Iterable[Option]) -> Iterator[str]:
    rows = []
    for option in options:
        words = [" ".join(filter(None, (name, option.metavar))) for name in option.names]
        spelled = ", ".join(_code(word) for word in words or [option.metavar])
        rows.append(f"| {spelled} | {_cell(option.help)} |")
    if rows:
        yield from ("| option | |", "| --- | --- |", *rows, "")


def _messages() -> str:
    """The fields of each JSON message, from the schema."""
    (file,) = PACKAGE.glob("*/schema.json")
    schema = json.loads(file.read_text(encoding="utf-8"))
    kinds = schema["$defs"]
    lines = [schema["description"], ""]
    for reference_ in schema["oneOf"]:
        name = reference_["$ref"].rpartition("/")[2]
        lines += [f"## {_code(name)}", "", kinds[name].get("description", ""), ""]
        lines += ["| field | type | always there |", "| --- | --- | --- |"]
        for field, kind in kinds[name]["properties"].items():
            always = "yes" if field in kinds[name]["required"] else "no"
            lines.append(f"| {_code(field)} | {_cell(_type(kind))} | {always} |")
        lines.append("")
    return "\n".join(lines)


def _type(kind: dict[str, Any]) -> str:
    """A type in a word or two."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        said = {"names": "array of strings", "count": "integer", "time": "seconds"}
        return said.get(name, _code(name))
    if "const" in kind:
        return _code(json.dumps(kind["const"]))
    if "enum" in kind:
        return ", ".join(_code(json.dumps(value)) for value in kind["enum"])
    if kind.get("type") == "array":
        return f"array of {_type(kind['items'])}"
    if "oneOf" in kind or "anyOf" in kind:
        return " or ".join(_type(one) for one in kind.get("oneOf", kind.get("anyOf")))
    if isinstance(kind.get("type"), list):
        return " or ".join(kind["type"])
    return str(kind.get("type", "anything"))


def _examples() -> str:
    """The table of the examples' own README; a site has no links to folders."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return "\n".join(re.sub(r"\[(.*?)\]\(.*?\)", r"`examples/\1`", row) for row in rows)


def _functions() -> str:
    """The signature and the description of each function of the API, from its source."""
    lines = []
    found = _definitions(PACKAGE / "api.py")
    for name in public_names():
        function = found.get(name)
        if isinstance(function, ast.FunctionDef):
            text = ast.get_docstring(function) or ""
            lines += [f"## {_code(name)}", "", *_python(_signature(function)), text, ""]
    lines += ["## What is public", "", *_python(_source(PACKAGE / "api.py", "Public"))]
    lines += ["## Results", ""]
    for file in sorted(PACKAGE.rglob("*.py")):
        for name in RESULTS & _definitions(file).keys():
            lines += _python(_source(file, name))
    return "\n".join(lines)


RESULTS = {"Outcome", "Statistics", "Seconds", "Inspection", "Finding", "Sizes", "Exported"}


def public_names() -> list[str]:
    """What `import cargo_strip_hook` offers, as its `__all__` says it."""
    for node in _module(PACKAGE / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError("the package has no __all__")


def _signature(function: ast.FunctionDef) -> str:
    """The head of a function, a line for each parameter."""
    arguments = ast.unparse(function.args).replace("**public: Unpack[Public]", "**public")
    parameters = re.split(r", (?=\*|\w+[:=])", arguments)
    returns = ast.unparse(function.returns) if function.returns else "None"
    return f"{function.name}(\n    " + ",\n    ".join(parameters) + f",\n) -> {returns}"


def _source(file: Path, name: str) -> str:
    source = file.read_text(encoding="utf-8")
    return ast.get_source_segment(source, _definitions(file)[name]) or ""


def _definitions(file: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in _module(file).body if isinstance(node, kinds)}


@functools.cache
def _module(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _python(code: str) -> list[str]:
    return ["```python", code, "```", ""]


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


MADE: dict[str, Callable[[], str]] = {
    "options": _options,
    "messages": _messages,
    "examples": _examples,
    "functions": _functions,
}
