"""Link the terms of the glossary where a chapter first uses them.

    python tools/link_terms.py                      every chapter (book/0*.ipynb)
    python tools/link_terms.py book/03-adam.ipynb   only these
    python tools/link_terms.py --check              write nothing; fail where a term is not linked

Only running text in markdown cells is changed: no heading, table, formula, code, directive, bold
or linked words, and not the cell with the title. A term that a chapter already links is left alone,
so a second run changes nothing. Words that every page uses are linked once in the whole book.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "book" / "reference" / "glossary.md"
EVERYDAY = {
    "Adam", "AdamW", "batch", "convergence", "curvature", "decay", "dtype", "engine", "epoch",
    "gradient", "gradient descent", "iteration", "learning rate", "loss", "momentum method",
    "optimizer", "panel", "parameter", "quadratic", "rule", "sample", "scheduler", "step",
    "stochastic gradient descent", "tensor",
}  # fmt: skip
# Words with another meaning elsewhere (the chain rule, autograd's engine): linked by hand.
AMBIGUOUS = {"engine", "rule"}
# Words for a term that the glossary itself does not list, because a page has that name.
ALSO = {"momentum method": ["momentum"]}
# what must not be touched: code, formulas, links, roles, bold and italic words, raw HTML
HELD = re.compile(
    r"\{[\w:-]+\}`[^`]*`|`[^`]*`|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|\*\*.+?\*\*|\*[^*\s][^*]*\*|<[^>]*>"
)
LINKED = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`")


def terms(text: str) -> dict[str, list[str]]:
    """Every term of the glossary, the first of its names, with all its names."""
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in (block[1] if block else "").splitlines():
        if line and not line.startswith(" "):
            names.append(line)
        elif names:
            found[names[0]] = [*names, *ALSO.get(names[0], [])]
            names = []
    return found


def pattern(name: str) -> re.Pattern[str]:
    """A name in running text, with a capital at the start or an s at the end."""
    first = name[0]
    start = f"[{first.upper()}{first.lower()}]" if name[1:2].islower() else re.escape(first)
    words = re.sub(r"\\[ -]", r"[\\s-]", re.escape(name[1:]))
    return re.compile(rf"(?<![\w/`.-]){start}{words}(?:s|es)?(?![\w/`-]|\.\w)")


def paragraphs(source: str) -> list[tuple[str, bool]]:
    """The lines of a cell, and whether each is running text."""
    out = []
    fence = ""
    formula = False
    for line in source.split("\n"):
        mark = re.match(r"\s*(`{3,}|:{3,}|~{3,})", line)
        plain = not fence and not formula
        if mark and not fence:
            fence, plain = mark[1], False
        elif mark and line.strip() == fence:
            fence = ""
            plain = False
        elif not fence and line.count("$$") % 2:
            formula, plain = not formula, False
        special = re.match(r"\s*(#|\||\(.*\)=$|\$\$|<|\*\*[AS]\d)", line)
        out.append((line, plain and not special))
    return out


def link(cells: Iterable[str], wanted: dict[str, list[str]], done: set[str]) -> list[str]:
    """The cells with the first use of each term linked; what is linked is added to ``done``."""
    cells = list(cells)
    for cell in cells:
        done.update(LINKED.findall(cell))
    # longer names first, so that "saddle point" is not taken for "saddle"
    names = sorted(
        ((name, term) for term, group in wanted.items() for name in group if term not in AMBIGUOUS),
        key=lambda pair: -len(pair[0]),
    )
    out = []
    for cell in cells:
        lines = []
        for line, running in paragraphs(cell):
            lines.append(_link_line(line, names, done) if running else line)
        out.append("\n".join(lines))
    return out


def _link_line(line: str, names: list[tuple[str, str]], done: set[str]) -> str:
    held = [match.span() for match in HELD.finditer(line)]
    new: list[tuple[int, int, str]] = []
    for name, term in names:
        for match in pattern(name).finditer(line):
            if any(start < match.end() and match.start() < end for start, end in held):
                continue
            held.append(match.span())  # no shorter name may take a part of it
            if term not in done:
                done.add(term)
                word = match[0]
                role = f"{{term}}`{word}`" if word == term else f"{{term}}`{word} <{term}>`"
                new.append((*match.span(), role))
    for start, end, role in sorted(new, reverse=True):
        line = line[:start] + role + line[end:]
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: book/0*.ipynb")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a change")
    options = parser.parse_args()
    paths = options.notebooks or sorted((ROOT / "book").glob("0*.ipynb"))
    wanted = terms(GLOSSARY.read_text(encoding="utf-8"))
    everyday: set[str] = set()
    changed = 0
    for path in paths:
        nb = nbformat.read(path, as_version=4)
        text = [
            c
            for c in nb.cells
            if c.cell_type == "markdown" and not re.search(r"^# ", c.source, re.M)
        ]
        done = set(everyday)
        after = link((cell.source for cell in text), wanted, done)
        everyday |= done & EVERYDAY
        count = sum(cell.source != new for cell, new in zip(text, after, strict=True))
        for cell, new in zip(text, after, strict=True):
            cell.source = new
        if count:
            changed += 1
            print(f"{path.name}: {count} cells {'lack links' if options.check else 'changed'}")
            if not options.check:
                path.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    return 1 if changed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
