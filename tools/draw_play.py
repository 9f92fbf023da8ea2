"""Draw the figures to play with as they are at first, for readers whose browser runs no scripts.

    python tools/draw_play.py     writes book/_static/play/NAME.svg; run it after a change there

The pictures are what the scripts themselves draw, in Chromium, 640 pixels wide. A test in
tests/site compares them, so they cannot fall behind.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static" / "play"
sys.path.insert(0, str(ROOT / "tests" / "site"))

from conftest import OPTIONS, build_play_page, find_browser  # noqa: E402

from walkthrough.play import FIGURES  # noqa: E402

# One SVG of all drawings of a figure, one below the other, with the rules of the style sheet that
# apply, in the colours of the light page.
COLLECT = """async (root, css) => {
  document.documentElement.dataset.theme = "light";
  root.style.width = "674px";
  await new Promise((done) => setTimeout(done, 200));
  const look = getComputedStyle(root);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  const rules = [...sheet.cssRules]
    .filter((rule) => /^\\.play-drawing |^\\.play-grip$/.test(rule.selectorText || ""))
    .map((rule) => rule.cssText.replace(/\\.play-drawing /g, "")
      .replace(/var\\((--[\\w-]+)[^)]*\\)/g, (_, name) => look.getPropertyValue(name).trim()));
  let top = 0, width = 0;
  const parts = [];
  for (const svg of root.querySelectorAll(".play-drawing")) {
    const [, , w, h] = svg.getAttribute("viewBox").split(" ").map(Number);
    const put = (where, what) => `<g transform="${where}">${what}</g>`;
    const grip = svg.querySelector(".play-grip");
    const knob = grip ? put(grip.parentNode.getAttribute("transform"), grip.outerHTML) : "";
    parts.push(put(`translate(0 ${top})`, svg.querySelector(".drawn").innerHTML + knob));
    top += h + 10;
    width = Math.max(width, w);
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 ${width + 16} ${top}"` +
    ` font-family="sans-serif" color="#1d2428"><style>${rules.join("\\n")}</style>\\n` +
    parts.join("\\n") + "</svg>\\n";
}"""


def picture(page: Page, name: str) -> str:
    """What a figure draws when its page has been opened, as a file."""
    css = (STATIC / "play.css").read_text(encoding="utf-8")
    return page.locator(f"[data-play={name}]").evaluate(COLLECT, css)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        address = build_play_page(Path(folder))
        browser = driver.chromium.launch(
            executable_path=find_browser(), args=OPTIONS, chromium_sandbox=False
        )
        page = browser.new_page()
        page.goto(address)
        for name in FIGURES:
            path = STATIC / f"{name}.svg"
            path.write_text(picture(page, name), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
