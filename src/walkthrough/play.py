"""Figures to play with, for the site: a Sphinx extension.

On a page such a figure is an ordinary code block of the class ``play`` whose name says which one::

    ```{code-block} text
    :class: play
    :name: play-descent
    To play with, on the website: gradient descent in a bowl, with a slider for the learning rate.
    ```

In JupyterLab it stays a box with that sentence. In the site it becomes the figure: sliders and
buttons that the browser has anyway, empty drawings of a fixed shape, so that nothing moves when
they are filled, and a short script of our own that fills them (``book/_static/play``). Without
scripts there is the sentence, and a picture that ``tools/draw_play.py`` has made. The scripts are
loaded by the pages that have a figure, and by no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from .panels import PanelBlock, panel_box, raw

LOGGER = logging.getLogger(__name__)


# --- what stands under a drawing ------------------------------------------------------------------


@dataclass(frozen=True)
class Slider:
    """A number. ``scale`` says what the position of the knob stands for.

    "" is the number itself; "log" its decimal logarithm; "memory" the number of nines of a decay:
    1 is 0.9, 2 is 0.99.
    """

    key: str
    label: str
    low: float
    high: float
    step: float
    value: float
    scale: str = ""
    kind: str = ""  # shown only while this is chosen, see `Choice`

    def html(self, name: str) -> str:
        where = f"{name}-{self.key}"
        return (
            f'<div class="play-slider"{shown(self.kind)}>'
            f'<label for="{where}">{self.label}</label>'
            f'<span class="play-value" aria-hidden="true"></span>'
            f'<input type="range" id="{where}" data-key="{self.key}" data-scale="{self.scale}"'
            f' min="{self.low}" max="{self.high}" step="{self.step}" value="{self.value}"'
            ' autocomplete="off"></div>'
        )


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    key: str
    label: str
    options: tuple[str, ...]
    value: str
    kind: str = ""

    def html(self, name: str) -> str:
        where = f"{name}-{self.key}"
        options = "".join(
            f"<option{' selected' * (option == self.value)}>{escape(option)}</option>"
            for option in self.options
        )
        return (
            f'<div class="play-choice"{shown(self.kind)}><label for="{where}">{self.label}</label>'
            f'<select id="{where}" data-key="{self.key}" autocomplete="off">{options}</select>'
            "</div>"
        )


@dataclass(frozen=True)
class Button:
    """Something that can be done. ``moves`` marks one that starts a movement."""

    key: str
    label: str
    moves: bool = False

    def html(self, name: str) -> str:
        kind = " play-moves" * self.moves
        return (
            f'<button type="button" class="play-button{kind}" data-key="{self.key}">'
            f"{escape(self.label)}</button>"
        )


@dataclass(frozen=True)
class Code:
    """Lines of code that change with the figure, ready to copy."""

    key: str
    label: str

    def html(self, name: str) -> str:
        return (
            f'<div class="play-code"><div class="play-code-head"><span>{escape(self.label)}</span>'
            f'<button type="button" class="play-button" data-key="copy">Copy</button></div>'
            f'<pre tabindex="0" role="group" aria-label="{escape(self.label)}">'
            f'<code data-key="{self.key}"></code></pre></div>'
        )


def shown(kind: str) -> str:
    return f' data-kind="{escape(kind)}"' if kind else ""


Part = Slider | Choice | Button | Code


@dataclass(frozen=True)
class Figure:
    """A figure: its title, what its drawings show, and what stands under them."""

    title: str
    drawings: tuple[str, ...]  # what each shows, in words
    parts: tuple[Part, ...]
    shapes: tuple[str, ...] = field(default=("wide",))  # see play.css

    def html(self, name: str) -> Iterator[str]:
        for number, (shape, label) in enumerate(zip(self.shapes, self.drawings, strict=True)):
            yield (
                f'<svg class="play-drawing play-{shape}" id="{name}-drawing-{number}" role="group"'
                f' aria-label="{escape(label)}"></svg>'
            )


RUN = Button("run", "Run", moves=True)


def schedule_parts(slot: str, kind: str, values: dict[str, float]) -> Iterator[Part]:
    """A choice of five schedulers, and the options of each."""
    kinds = ("LinearLR", "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR")
    yield Choice(f"{slot}kind", f"{'first' if slot == 'a' else 'second'} scheduler", kinds, kind)
    rows = [
        ("LinearLR", "start_factor", 0.01, 1, 0.01, 0.1, ""),
        ("LinearLR", "end_factor", 0, 1, 0.01, 1, ""),
        ("LinearLR", "total_iters", 1, 200, 1, 20, ""),
        ("StepLR", "step_size", 1, 200, 1, 50, ""),
        ("StepLR", "gamma", 0.05, 1, 0.05, 0.3, ""),
        ("MultiStepLR", "milestone1", 1, 200, 1, 100, ""),
        ("MultiStepLR", "milestone2", 1, 200, 1, 150, ""),
        ("MultiStepLR", "gamma", 0.05, 1, 0.05, 0.1, ""),
        ("ExponentialLR", "gamma", 0.9, 1, 0.001, 0.98, ""),
        ("CosineAnnealingLR", "T_max", 1, 200, 1, 180, ""),
        ("CosineAnnealingLR", "eta_min", 0, 0.1, 0.001, 0, ""),
    ]
    labels = {"milestone1": "milestones, first", "milestone2": "milestones, second"}
    for name, key, low, high, step, value, scale in rows:
        label = labels.get(key, f"<code>{key}</code>")
        value = values.get(key, value)
        yield Slider(f"{slot}{name}-{key}", label, low, high, step, value, scale, f"{slot}{name}")


FIGURES = {
    "descent": Figure(
        "Gradient descent in a bowl",
        (
            "The path of gradient descent over an oval bowl, from a start that can be moved",
            "The factor by which one step multiplies the error, against the learning rate",
        ),
        (
            Slider("lr", "learning rate <i>η</i>", 0.002, 0.25, 0.002, 0.16),
            Slider("steps", "steps <i>t</i>", 0, 40, 1, 20),
            RUN,
        ),
        ("wide", "flat"),
    ),
    "ravine": Figure(
        "A heavy ball in a ravine",
        (
            "The path of gradient descent with momentum through a narrow ravine",
            "The four eigenvalues of a step in the complex plane, with the unit circle",
        ),
        (
            Slider("lr", "learning rate <i>η</i>", 0.001, 0.1, 0.001, 0.037),
            Slider("beta", "momentum <i>β</i>", 0, 0.99, 0.01, 0.6),
            Slider("steps", "steps <i>t</i>", 0, 100, 1, 40),
            RUN,
            Button("best", "Set the best pair"),
        ),
        ("wide", "square"),
    ),
    "race": Figure(
        "Adam against gradient descent",
        (
            "Two paths over a surface, one of SGD and one of Adam, from a start that can be moved",
            "The loss of both after each step, on a logarithmic axis",
        ),
        (
            Choice("surface", "surface", ("ravine", "Rosenbrock's valley"), "ravine"),
            Slider("tilt", "ravine turned by", 0, 90, 1, 0, "degrees", "ravine"),
            Slider("sgd", "<code>lr</code> of SGD", -4, 0, 0.02, -1.42, "log"),
            Slider("adam", "<code>lr</code> of Adam", -3, 0.3, 0.02, -0.52, "log"),
            Slider("steps", "steps <i>t</i>", 0, 300, 1, 60),
            RUN,
        ),
        ("tall", "flat"),
    ),
    "bias": Figure(
        "What the bias correction does",
        (
            "The length of each step of Adam in units of lr, with and without bias correction,"
            " against the number of the step on a logarithmic axis",
        ),
        (
            Slider("beta1", "first decay <i>β</i><sub>1</sub>", 0, 3, 0.05, 1, "memory"),
            Slider("beta2", "second decay <i>β</i><sub>2</sub>", 0, 4, 0.05, 3, "memory"),
            Slider("noise", "noise in the gradient <i>σ</i>", 0, 2, 0.1, 0),
        ),
        ("wide",),
    ),
    "designer": Figure(
        "A schedule designer",
        ("The learning rate after each step of the schedule",),
        (
            Slider("lr", "<code>lr</code> of the optimizer", -3, 0, 0.02, -1, "log"),
            Slider("steps", "steps shown", 10, 400, 10, 200),
            *schedule_parts("a", "LinearLR", {}),
            Choice(
                "join",
                "the second",
                ("is not used", "takes over (SequentialLR)", "works too (ChainedScheduler)"),
                "takes over (SequentialLR)",
            ),
            Slider("milestone", "<code>milestones</code>", 1, 300, 1, 20, "", "takes over"),
            *schedule_parts("b", "CosineAnnealingLR", {}),
            Code("code", "This schedule in PyTorch"),
        ),
        ("flat",),
    ),
    "noise": Figure(
        "A schedule at work under noise",
        (
            "The learning rate at each step",
            "Thirty runs on a noisy parabola, and the band in which two thirds of all runs lie",
        ),
        (
            Choice(
                "schedule",
                "schedule",
                ("constant", "StepLR", "ExponentialLR", "CosineAnnealingLR", "1/t", "designed"),
                "CosineAnnealingLR",
            ),
            Slider("lr", "first learning rate <i>η</i><sub>0</sub>", -2, 0, 0.02, -0.5, "log"),
            Slider("gamma", "<code>gamma</code>", 0.8, 1, 0.005, 0.98, "", "gamma"),
            Slider("drop", "<code>gamma</code>", 0.05, 1, 0.05, 0.3, "", "drop"),
            Slider("sigma", "noise <i>σ</i>", 0, 3, 0.1, 1),
            Button("again", "Other noise"),
        ),
        ("strip", "wide"),
    ),
}


# --- how it gets into a page ----------------------------------------------------------------------


class PlayBlock(PanelBlock):
    """``{code-block}``, which becomes a figure to play with if it has the class ``play``."""

    def run(self) -> list[nodes.Node]:
        if "play" not in self.options.get("class", []):
            return super().run()
        name = self.options.get("name", "")
        figure = FIGURES.get(name.removeprefix("play-"))
        if figure is None or not name.startswith("play-"):
            known = ", ".join(f"play-{key}" for key in FIGURES)
            LOGGER.warning(
                "play: %r is none of %s", name, known, location=self.get_location(), type="play"
            )
            return []
        box = panel_box(kind=["play"])
        self.add_name(box)
        where = box["ids"][0]
        key = name.removeprefix("play-")
        still = f"{'../' * self.env.docname.count('/')}_static/play/{key}.svg"
        inputs = "".join(part.html(where) for part in figure.parts if not isinstance(part, Code))
        code = "".join(part.html(where) for part in figure.parts if isinstance(part, Code))
        box += raw(
            f'<div class="play-box" role="group" aria-labelledby="{where}-title"'
            f' data-play="{key}">'
            f'<p class="play-title"><span id="{where}-title">{escape(figure.title)}</span>'
            f'<a class="headerlink" href="#{where}" title="Link to this figure">#</a></p>'
            "<noscript>"
            f'<img src="{still}" alt="{escape(". ".join(figure.drawings))}." width="640">'
        )
        box += nodes.paragraph("", " ".join(" ".join(self.content).split()))
        box += raw(
            f'</noscript><div class="play-stage">{"".join(figure.html(where))}</div>'
            f'<div class="play-parts">{inputs}</div>'
            '<p class="play-says" aria-hidden="true"></p><p class="play-live" role="status"></p>'
            f"{code}</div>"
        )
        self.set_source_info(box)
        return [box]


def load_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add the shared script, and one for each figure, to a page that has figures."""
    if doctree is None:
        return
    boxes = [box for box in doctree.findall(panel_box) if "play" in box.get("kind", [])]
    if boxes:
        app.add_css_file("play/play.css")
        app.add_js_file("play/play.js", loading_method="defer")
    for name in dict.fromkeys(box["ids"][0].removeprefix("play-") for box in boxes):
        app.add_js_file(f"play/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("walkthrough.panels")
    app.add_directive("code-block", PlayBlock, override=True)
    app.connect("html-page-context", load_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


__all__ = ["setup"]
