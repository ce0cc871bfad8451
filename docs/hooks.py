"""What MkDocs does with a page before and after Markdown: lines of the source code, and formulas. See mkdocs.yml.

    ::: ppo2/ppo2.py Update.epochs               a function or method in baselines_lite/, without its docstring
    ::: ppo2/ppo2.py loss_and_stats advs ratio   of its statements those that give these names a value

The source is read when the site is built; what is not there ends the build. A formula, $x$ in a line or $$x$$ alone,
becomes MathML, which browsers draw themselves: no script, no request. Words of code that is not highlighted have a
span around each, which extra.css keeps whole: a browser breaks a flag at its hyphens.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

PACKAGE = Path(__file__).resolve().parent.parent / "baselines_lite"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with the source in place of the lines that begin with `:::`."""
    return re.sub(r"^::: (\S+) (\S+)(.*)$", lambda m: f'```python title="{m[1]}: {m[2]}"\n'
                  f"{source(m[1], m[2], m[3].split())}\n```", markdown, flags=re.MULTILINE)


def on_page_content(content: str, **_: Any) -> str:
    """A page with MathML in place of the formulas that arithmatex has marked, and the words of plain code marked."""
    content = re.sub(r'(<(?:span|div) class="arithmatex">)\\([(\[])(.*?)\\[)\]]<',
                     lambda m: f"{m[1]}{mathml(html.unescape(m[3]), 'block' if m[2] == '[' else 'inline')}<", content,
                     flags=re.DOTALL)
    return re.sub(r"(?<=<code>)[^<]+(?=</code>)", whole_words, content)


def whole_words(code: re.Match[str]) -> str:
    """Code with a span around each word that is no longer than fits a narrow column."""
    return re.sub(r"(?<!\S)\S{1,32}(?!\S)", r'<span class="word">\g<0></span>', code[0])


def source(path: str, name: str, assigned: list[str]) -> str:
    """The source of a function, or its statements that assign these names. Raises PluginError for what is not there.

    Of a `with` or `while` the statements inside count, an `if` or `for` as a whole. `...`: lines were left out.
    """
    text = (PACKAGE / path).read_text(encoding="utf-8") if (PACKAGE / path).exists() else ""
    body, lines = ast.parse(text).body, text.splitlines()
    for part in name.split("."):
        node = next((n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part), None)
        if node is None:
            raise PluginError(f"docs: there is no {name} in baselines_lite/{path}")
        body = node.body
    if not assigned:
        first = node.lineno - 1
        if ast.get_docstring(node) is not None:
            del lines[body[0].lineno - 1 : body[0].end_lineno]
            node.end_lineno -= body[0].end_lineno - body[0].lineno + 1
        return textwrap.dedent("\n".join(lines[first : node.end_lineno]))
    chosen = [n for n in statements(body) if names_given(n) & set(assigned)]
    if missing := set(assigned) - {given for n in chosen for given in names_given(n)}:
        raise PluginError(f"docs: {name} in baselines_lite/{path} assigns no {', '.join(sorted(missing))}")
    parts, end = [], chosen[0].lineno - 1
    for n in chosen:
        parts += ["..."] if "".join(lines[end : n.lineno - 1]).strip() else []
        parts.append(textwrap.dedent("\n".join(lines[n.lineno - 1 : n.end_lineno])))
        end = n.end_lineno
    return "\n".join(parts)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, in place of a `with` or `while` those inside it."""
    for node in body:
        if isinstance(node, ast.With | ast.While):
            yield from statements(node.body)
        else:
            yield node


def names_given(node: ast.stmt) -> set[str]:
    """The names that a statement gives a value: variables, a function, `return`."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    found = {"return"} if isinstance(node, ast.Return) else set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign | ast.AugAssign | ast.AnnAssign):
            for target in getattr(part, "targets", None) or [part.target]:
                found |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML. Raises PluginError where a command is not known."""
    made = convert(formula, display=display)
    if "\\" in made or "<mi>&</mi>" in made:
        raise PluginError(f"docs: latex2mathml does not know all of {formula!r}")
    return made
