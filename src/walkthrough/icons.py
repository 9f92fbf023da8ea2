"""The icons of the site, without the other two thousand.

The theme brings the whole of Font Awesome: a font of 150 KB and a style rule for every icon, of
which the pages use some twenty. What the finished pages do not use is taken out here.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

NAME = re.compile(r"\bfa-[a-z0-9-]+")
PRIVATE = re.compile("[\ue000-\uf8ff]")  # where icon fonts have their characters
GLYPH = re.compile(r"\\([ef][0-9a-f]{3})\b")
# a rule for icons alone, such as .fa-xmark:before,.fa-close:before{content:"\f00d"}
RULE = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')
FACE = re.compile(
    r"(src:url\()([^)]*/)(fa-[a-z]+-\d+)\.woff2\) format\(\"woff2\"\),url\([^)]*\.ttf\) "
    r'format\("truetype"\)'
)


def used_names(folder: Path) -> set[str]:
    """Every icon that a page or a script of the site names."""
    files = [*folder.rglob("*.html"), *(folder / "_static").rglob("*.js")]
    return {name for path in files for name in NAME.findall(path.read_text(encoding="utf-8"))}


def thin_out(folder: Path) -> dict[str, int]:
    """Keep only what is used of the icon fonts and their rules, in place.

    Args:
        folder: the built site.

    Returns:
        How many icons each font keeps. A font that keeps none is removed, and its rule stays: it
        is never fetched.
    """
    names = used_names(folder)
    glyphs: set[int] = set()

    def rule(match: re.Match[str]) -> str:
        if names.isdisjoint(NAME.findall(match.group(1))):
            return ""
        glyphs.add(int(match.group(2), 16))
        return match.group(0)

    for path in (folder / "_static").rglob("*.css"):
        before = path.read_text(encoding="utf-8")
        rest = RULE.sub(rule, before)
        other = RULE.sub("", rest)  # names an icon by its code, or by the very character
        glyphs.update(int(code, 16) for code in GLYPH.findall(other))
        glyphs.update(ord(character) for character in PRIVATE.findall(other))
        after = FACE.sub(r'\1\2\3.woff) format("woff")', rest)
        if after != before:
            path.write_text(after, encoding="utf-8")

    kept = {}
    for path in sorted((folder / "_static").rglob("fa-*.ttf")):
        font = TTFont(path)
        found = glyphs & set(font.getBestCmap())
        if found:
            options = subset.Options(flavor="woff", notdef_outline=True, name_IDs=["*"])
            maker = subset.Subsetter(options)
            maker.populate(unicodes=found)
            maker.subset(font)
            font.flavor = "woff"
            data = io.BytesIO()
            font.save(data)
            path.with_suffix(".woff").write_bytes(data.getvalue())
        kept[path.stem] = len(found)
        path.unlink()
        path.with_suffix(".woff2").unlink(missing_ok=True)
    return kept
