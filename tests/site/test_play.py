"""Figures to play with: their rules are minioptim's, and they answer to keys, mouse and finger."""

from __future__ import annotations

import random
import sys
import types
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from conftest import HTML, ROOT, pages, visitor
from playwright.sync_api import Browser, Page, expect

import minioptim
from minioptim import lr_scheduler as ours
from walkthrough.play import FIGURES

sys.path.insert(0, str(ROOT / "tools"))

from draw_play import picture

STEPS = 200
CLOSE = 1e-9
HOME = {
    "descent": "book/01-gradient-descent",
    "ravine": "book/02-momentum",
    "race": "book/03-adam",
    "bias": "book/03-adam",
    "designer": "book/04-schedulers",
    "noise": "book/04-schedulers",
}
KNOBS = ("descent", "ravine", "race")


@pytest.fixture
def page(visit, play_page: str) -> Page:
    return visit(play_page).page


@pytest.fixture(scope="module")
def rules(browser: Browser, play_page: str) -> Iterator[Page]:
    """A page that is only asked for numbers, one for all tests."""
    with visitor(browser) as visit:
        yield visit(play_page).page


# --- the rules are minioptim's --------------------------------------------------------------------

RULES = {
    "sgd": [
        (dict(lr=0.1), lambda p: minioptim.SGD(p, lr=0.1)),
        (dict(lr=1.7), lambda p: minioptim.SGD(p, lr=1.7)),
    ],
    "momentum": [
        (dict(lr=lr, beta=beta), lambda p, lr=lr, beta=beta: minioptim.SGD(p, lr=lr, momentum=beta))
        for lr, beta in ((0.05, 0.9), (0.3, 0.5), (0.01, 0.99), (0.1, 0.0))
    ],
    "adam": [
        (
            dict(lr=lr, beta1=b1, beta2=b2, eps=eps),
            lambda p, lr=lr, b1=b1, b2=b2, eps=eps: minioptim.Adam(p, lr, (b1, b2), eps),
        )
        for lr, b1, b2, eps in (
            (0.3, 0.9, 0.999, 1e-8),
            (0.01, 0.5, 0.9, 1e-3),
            (1.0, 0.0, 0.99, 1e-12),
            (0.1, 0.99, 0.9999, 0.1),
        )
    ],
}
CASES = [(name, *case) for name, cases in RULES.items() for case in cases]


def ids(value: object) -> str | None:
    return value if isinstance(value, str) else str(value) if isinstance(value, dict) else None


@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=ids)
def test_a_rule_is_the_rule_of_minioptim(rules: Page, name: str, options: dict, make) -> None:
    """The same 200 gradients into both, and every point compared."""
    numbers = torch.Generator().manual_seed(3)
    gradients = torch.randn(STEPS, 5, dtype=torch.float64, generator=numbers)
    gradients[50:60] = 0
    gradients[:, 4] *= 1000
    x = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    theirs = rules.evaluate(
        "([name, options, start, gs]) =>"
        " Play.walk(Play[name], options, (p, t) => gs[t], start, gs.length)",
        [name, options, x.tolist(), gradients.tolist()],
    )
    optimizer = make([x])
    assert len(theirs) == STEPS + 1
    for point, g in zip(theirs[1:], gradients, strict=True):
        x.grad = g.clone()
        optimizer.step()
        assert (x - torch.tensor(point, dtype=torch.float64)).abs().max() < CLOSE * (
            1 + x.abs().max()
        )


def test_adam_without_correction_is_the_paper_without_hats(rules: Page) -> None:
    options = dict(lr=1.0, beta1=0.9, beta2=0.999, eps=0.0, hats=False)
    points = rules.evaluate("o => Play.walk(Play.adam, o, () => [1], [0], 200)", options)
    for t, (before, after) in enumerate(pairwise(points), 1):
        assert abs(before[0] - after[0] - (1 - 0.9**t) / (1 - 0.999**t) ** 0.5) < CLOSE


def test_a_planted_error_is_seen(rules: Page) -> None:
    """The comparison above can fail."""
    points = rules.evaluate(
        "() => Play.walk((p, g, s, o) => Play.momentum(p, g, s, {...o, beta: 0.90000001}),"
        " {lr: 0.1}, () => [1], [0], 200)"
    )
    x = torch.zeros(1, dtype=torch.float64)
    optimizer = minioptim.SGD([x], lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        x.grad = torch.ones_like(x)
        optimizer.step()
    assert abs(x.item() - points[-1][0]) > CLOSE * (1 + x.abs().item())


# --- the schedules are minioptim's, and PyTorch's -------------------------------------------------


def some(kind: str, choose: random.Random) -> dict:
    """Options that the designer's sliders can have."""
    count = lambda: choose.randint(1, 200)  # noqa: E731
    return {
        "LinearLR": lambda: dict(
            start_factor=choose.randint(1, 100) / 100,
            end_factor=choose.randint(0, 100) / 100,
            total_iters=count(),
        ),
        "StepLR": lambda: dict(step_size=count(), gamma=choose.randint(1, 20) / 20),
        "MultiStepLR": lambda: dict(
            milestones=sorted([count(), count()]), gamma=choose.randint(1, 20) / 20
        ),
        "ExponentialLR": lambda: dict(gamma=choose.randint(900, 1000) / 1000),
        "CosineAnnealingLR": lambda: dict(T_max=count(), eta_min=choose.randint(0, 100) / 1000),
    }[kind]()


KINDS = ("LinearLR", "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR")
DESIGNS = [("", a, a) for a in KINDS]
DESIGNS += [(j, a, b) for j in ("SequentialLR", "ChainedScheduler") for a in KINDS for b in KINDS]


def build(design: dict) -> list[float]:
    """The whole trace of a design, by minioptim's own schedulers."""
    optimizer = minioptim.SGD([torch.zeros(1)], lr=design["lr"])
    made = [getattr(ours, p["kind"])(optimizer, **p["options"]) for p in design["parts"]]
    scheduler = made[0]
    if design["join"] == "SequentialLR":
        scheduler = ours.SequentialLR(optimizer, made, milestones=[design["milestone"]])
    elif design["join"] == "ChainedScheduler":
        scheduler = ours.ChainedScheduler(made, optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(STEPS):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def run_code(code: str) -> list[float]:
    """The whole trace of the code that a reader copies, run with the real torch.optim."""
    code = code.replace("    ...  # forward, backward\n", "    note(optimizer)\n")
    assert "note(optimizer)" in code
    rates: list[float] = []
    scope = {
        "model": types.SimpleNamespace(parameters=lambda: [torch.zeros(1)]),
        "note": lambda optimizer: rates.append(optimizer.param_groups[0]["lr"]),
    }
    exec(code, scope)
    return [*rates, scope["optimizer"].param_groups[0]["lr"]]


def apart(a: list[float], b: list[float]) -> float:
    assert len(a) == len(b) == STEPS + 1
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("join", "a", "b"), DESIGNS)
def test_a_schedule_is_the_schedule_of_minioptim(rules: Page, join: str, a: str, b: str) -> None:
    """Whole traces, for five random designs of every kind; and the code gives the same rates."""
    choose = random.Random(f"{join} {a} {b}")
    for _ in range(5):
        design = {
            "lr": choose.choice([1.0, 0.1, 0.03, 0.001]),
            "join": join,
            "milestone": choose.randint(1, 220),
            "parts": [{"kind": k, "options": some(k, choose)} for k in ((a, b) if join else (a,))],
        }
        drawn, code = rules.evaluate(
            "([d, n]) => [Play.trace(d, n), Play.code(d, n)]", [design, STEPS]
        )
        assert apart(drawn, build(design)) < CLOSE, design
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert apart(drawn, run_code(code)) < CLOSE, code


def test_the_code_on_the_page_is_that_of_the_curve(page: Page) -> None:
    """From the inputs to the code: what a reader sets is what the reader copies."""
    figure = page.locator("#play-designer")
    figure.get_by_label("the second", exact=True).select_option("works too (ChainedScheduler)")
    figure.get_by_label("second scheduler").select_option("ExponentialLR")
    gamma = figure.get_by_label("gamma").locator("visible=true")
    expect(gamma).to_have_count(1)  # of the five schedulers only one is in use here
    gamma.focus()
    page.keyboard.press("ArrowLeft")
    code = page.locator("#play-designer pre")
    expect(code).to_contain_text("ExponentialLR(optimizer, gamma=0.979)")
    rates = run_code(code.inner_text().replace("\xa0", " "))
    drawn = page.evaluate("() => Play.trace(Play.design(), 200)")
    assert apart(drawn, rates) < CLOSE


def test_the_code_can_be_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#play-designer").get_by_role("button", name="Copy").click()
    expect(page.locator("#play-designer [data-key=copy]")).to_have_text("Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == page.locator("#play-designer code[data-key=code]").text_content()


# --- a figure answers -----------------------------------------------------------------------------


def state(page: Page, name: str) -> tuple[str, str]:
    """What a figure draws and what it says."""
    figure = page.locator(f"#play-{name}")
    return figure.locator(".play-stage").inner_html(), figure.locator(".play-says").inner_text()


def next_frame(page: Page) -> None:
    """Waits for the drawing, which comes with the next frame, however long a busy machine takes."""
    frame = "new Promise(done => requestAnimationFrame(done))"
    page.evaluate(f"async () => {{ await {frame}; await {frame}; }}")


def sliders(page: Page, name: str) -> list[str]:
    found = page.locator(f"#play-{name} input[type=range]:visible")
    return [found.nth(i).get_attribute("id") or "" for i in range(found.count())]


@pytest.mark.parametrize("name", FIGURES)
def test_every_slider_answers_to_the_keyboard(page: Page, name: str) -> None:
    for slider in sliders(page, name):
        before = state(page, name)
        knob = page.locator(f"#{slider}")
        knob.focus()
        said = knob.get_attribute("aria-valuetext")
        low = float(knob.input_value()) == float(knob.get_attribute("min") or 0)
        for _ in range(3):
            page.keyboard.press("ArrowRight" if low else "ArrowLeft")
        next_frame(page)
        assert knob.get_attribute("aria-valuetext") != said
        assert state(page, name)[0] != before[0], f"{slider} changes no drawing"
        words = page.locator(f"#play-{name} .play-slider:has(#{slider}) .play-value")
        assert words.inner_text() == f"= {knob.get_attribute('aria-valuetext')}"
        outline = knob.evaluate("e => getComputedStyle(e).outlineStyle")
        assert outline != "none", "focus cannot be seen"


@pytest.mark.parametrize("name", FIGURES)
def test_a_slider_answers_to_the_mouse(page: Page, name: str) -> None:
    before = state(page, name)
    knob = page.locator(f"#{sliders(page, name)[0]}")
    knob.scroll_into_view_if_needed()
    box = knob.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.up()
    next_frame(page)
    after = state(page, name)
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("name", KNOBS)
def test_the_start_is_moved_by_keys(page: Page, name: str) -> None:
    knob = page.locator(f"#play-{name} .play-knob")
    knob.focus()
    before, at = state(page, name), knob.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    next_frame(page)
    assert knob.get_attribute("aria-valuetext") != at
    assert all(new != old for new, old in zip(state(page, name), before, strict=True))
    assert knob.evaluate("e => document.activeElement === e")


def drag_by_mouse(page: Page, x: float, y: float) -> None:
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y + 8, steps=4)
    page.mouse.move(x - 60, y + 15, steps=4)
    page.mouse.up()


def drag_by_finger(page: Page, x: float, y: float) -> None:
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *points: dict) -> None:
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    touch("touchStart", {"x": x, "y": y})
    for part in (0.25, 0.5, 0.75, 1):
        touch("touchMove", {"x": x - 60 * part, "y": y + 15 * part})
    touch("touchEnd")


@pytest.mark.parametrize("drag", [drag_by_mouse, drag_by_finger])
@pytest.mark.parametrize("name", KNOBS)
def test_the_start_can_be_dragged(page: Page, name: str, drag) -> None:
    knob = page.locator(f"#play-{name} .play-knob")
    knob.scroll_into_view_if_needed()
    before, at = state(page, name), knob.get_attribute("aria-valuetext")
    scrolled = page.evaluate("scrollY")
    box = knob.bounding_box()
    drag(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    next_frame(page)
    after = knob.bounding_box()
    assert knob.get_attribute("aria-valuetext") != at
    assert all(new != old for new, old in zip(state(page, name), before, strict=True))
    assert abs(after["x"] - box["x"] + 60) < 4
    assert abs(after["y"] - box["y"] - 15) < 4
    assert page.evaluate("scrollY") == scrolled, "dragging scrolled the page"


@pytest.mark.parametrize("name", FIGURES)
def test_every_choice_and_button_answers(page: Page, name: str) -> None:
    figure = page.locator(f"#play-{name} :is(.play-stage, .play-code pre)").last
    choices = page.locator(f"#play-{name} select:visible")
    for i in range(choices.count()):
        choice = choices.nth(i)
        for option in choice.locator("option").all_inner_texts():
            before = figure.inner_html()
            if choice.input_value() == option or choice.is_disabled() or option == "designed":
                continue
            choice.select_option(option)
            next_frame(page)
            assert figure.inner_html() != before, f"{option} changes nothing"
    buttons = {"ravine": "Set the best pair", "noise": "Other noise"}
    if name in buttons:
        before = state(page, name)
        page.locator(f"#play-{name}").get_by_role("button", name=buttons[name]).click()
        next_frame(page)
        assert state(page, name)[0] != before[0]


def test_the_designed_schedule_is_put_to_work(page: Page) -> None:
    choice = page.get_by_label("schedule", exact=True)
    choice.select_option("designed")
    next_frame(page)
    before = state(page, "noise")
    page.get_by_label("first scheduler").select_option("ExponentialLR")
    next_frame(page)
    assert all(new != old for new, old in zip(state(page, "noise"), before, strict=True))


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_said_reaches_a_screen_reader_when_it_is_quiet(page: Page, name: str) -> None:
    live = page.locator(f"#play-{name} [role=status]")
    expect(live).to_have_text(state(page, name)[1])
    heard = page.evaluate_handle(
        "e => { const heard = []; new MutationObserver(() => heard.push(e.textContent))"
        ".observe(e, {childList: true, characterData: true, subtree: true}); return heard; }",
        live.element_handle(),
    )
    page.locator(f"#{sliders(page, name)[-1]}").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        next_frame(page)
    expect(live).to_have_text(state(page, name)[1])
    assert len(heard.json_value()) == 1, "it chatters"


# --- a figure keeps still when it should ----------------------------------------------------------


@pytest.mark.parametrize("name", KNOBS)
def test_run_moves_and_ends_where_it_was(visit, play_page: str, name: str) -> None:
    page = visit(play_page).page
    steps = page.locator(f"#play-{name}-steps")
    goal = steps.input_value()
    page.locator(f"#play-{name}").get_by_role("button", name="Run").click()
    page.wait_for_timeout(300)
    assert 0 <= int(steps.input_value()) < int(goal)
    expect(page.locator(f"#play-{name} [data-key=run]")).to_have_text("Run", timeout=15_000)
    assert steps.input_value() == goal


def test_nothing_runs_for_readers_who_want_no_motion(visit, play_page: str) -> None:
    page = visit(play_page, motion=False).page
    assert page.locator("[data-key=run]").count() == len(KNOBS)
    assert page.locator("[data-key=run]:visible").count() == 0
    before = [state(page, name) for name in FIGURES]
    page.wait_for_timeout(500)
    assert [state(page, name) for name in FIGURES] == before


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_move_nothing_when_they_are_drawn(visit, play_page: str, width: int) -> None:
    page = visit(play_page, width=width).page
    page.wait_for_timeout(300)
    # the theme's own search button waits for the theme's font of icons; in the book nothing does
    moved = [shift for shift in page.evaluate("window.shifts") if "search-button__" not in shift]
    assert moved == []


def test_colours_follow_the_theme(visit, play_page: str) -> None:
    page = visit(play_page).page
    line = page.locator("#play-descent .way").first
    seen = {}
    for theme in ("light", "dark"):
        page.evaluate("t => document.documentElement.dataset.theme = t", theme)
        seen[theme] = line.evaluate("e => getComputedStyle(e).stroke")
    assert seen["light"] != seen["dark"]


def test_without_scripts_a_sentence_stands_there(visit, play_page: str) -> None:
    page = visit(play_page, scripts=False).page
    for name in FIGURES:
        words = page.locator(f"#play-{name} noscript p")
        assert words.text_content() == f"Instead of {name}."
        assert words.bounding_box()["height"] > 10
        still = page.locator(f"#play-{name} noscript img")
        assert still.evaluate("e => e.complete && e.naturalWidth > 0")
        assert len(still.get_attribute("alt") or "") > 30
    shown = page.locator(".play :is(input, select, button, svg, pre)")
    assert shown.count() > 50
    assert shown.locator("visible=true").count() == 0


@pytest.mark.parametrize("name", FIGURES)
def test_the_picture_is_what_the_script_draws(page: Page, name: str) -> None:
    """After a change run tools/draw_play.py."""
    stored = ROOT / "book" / "_static" / "play" / f"{name}.svg"
    assert stored.read_text(encoding="utf-8") == picture(page, name)


# --- in the book ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_stands_in_its_chapter(name: str) -> None:
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    chapters = [c["file"] for part in yaml.safe_load(toc)["parts"] for c in part["chapters"]]
    if HOME[name] in chapters:
        text = (HTML / f"{HOME[name]}.html").read_text(encoding="utf-8")
        assert f'data-play="{name}"' in text


def playing() -> dict[str, list[str]]:
    """Every page of the built site that has figures, and which."""
    texts = {path: (HTML / path).read_text(encoding="utf-8") for path in pages()}
    found = {p: [n for n in FIGURES if f'data-play="{n}"' in text] for p, text in texts.items()}
    return {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("kind", ["http_site", "file_site"])
@pytest.mark.parametrize("path", playing())
def test_figures_answer_in_the_book(
    visit, request: pytest.FixtureRequest, path: str, kind: str
) -> None:
    seen = visit(request.getfixturevalue(kind) + path)
    for name in playing()[path]:
        figure_answers(seen.page, name)
    assert seen.outside == []
    assert seen.errors == []


def figure_answers(page: Page, name: str) -> None:
    """To a key, and to the mouse if its start can be dragged."""
    before = state(page, name)
    slider = page.locator(f"#{sliders(page, name)[0]}")
    slider.focus()
    at_its_end = slider.input_value() == slider.get_attribute("min")
    page.keyboard.press("ArrowRight" if at_its_end else "ArrowLeft")
    next_frame(page)
    assert all(new != old for new, old in zip(state(page, name), before, strict=True)), name
    if name in KNOBS:
        knob = page.locator(f"#play-{name} .play-knob")
        knob.scroll_into_view_if_needed()
        box = knob.bounding_box()
        drag_by_mouse(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        next_frame(page)
        assert knob.bounding_box() != box, name


def test_the_scripts_are_small_and_where_they_are_needed() -> None:
    folder = Path(ROOT / "book" / "_static" / "play")
    assert sum(path.stat().st_size for path in folder.glob("*.js")) < 60_000
    with_figures = playing()
    assert with_figures
    for path in pages():
        loads = "play/play.js" in (HTML / path).read_text(encoding="utf-8")
        assert loads == (path in with_figures), path
