"""The page in a real Chromium: offline, quiet, safe, and readable from 320 px to a desktop, light and dark."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distil.report.html import write_report

from .run_directory_fixture import HOSTILE, write_run
from .text_run_fixture import write_language_model_run, write_text_classification_run

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra distil[test]")

CHROMIUM = os.environ.get("DISTIL_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
WIDTHS = (320, 375, 640, 768, 961, 1280, 1920)
LEAST_CONTRAST = 4.5  # WCAG 2.2, level AA, for text of normal size
CONTRAST = """() => {
  const parse = (text) => {
    const srgb = text.match(/color\\(srgb ([\\d.]+) ([\\d.]+) ([\\d.]+)/);
    if (srgb) return [...srgb.slice(1, 4).map((value) => 255 * value), 1];
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return [...numbers.slice(0, 3), numbers.length > 3 ? numbers[3] : 1];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    throw new Error("no background");
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("title, desc, .hidden")) continue;
    const style = getComputedStyle(element);
    const pair = [parse(element.closest("svg") ? style.fill : style.color), background(element)];
    const [bright, dim] = pair.map((each) => luminance(each.slice(0, 3))).sort((a, b) => b - a);
    found.push([(bright + 0.05) / (dim + 0.05), walker.currentNode.data.trim()]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""
CLIPPED_TEXT = """() => {
  const charts = [...document.querySelectorAll("svg.chart")];
  return charts.flatMap((chart) => {
    const box = chart.getBoundingClientRect();
    return [...chart.querySelectorAll("text")].filter((text) => {
      const own = text.getBoundingClientRect();
      const isBeside = own.left < 0 || own.right > innerWidth + 0.5;
      return isBeside || own.top < box.top - 1 || own.bottom > box.bottom + 1;
    }).map((text) => text.textContent);
  });
}"""
OVERLAPPING_TEXT = """() => {
  const found = [];
  for (const chart of document.querySelectorAll("svg.chart")) {
    const boxes = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [index, [name, one]] of boxes.entries()) for (const [other, two] of boxes.slice(0, index)) {
      const isBeside = one.right <= two.left || two.right <= one.left;
      const isAbove = one.bottom <= two.top + 3 || two.bottom <= one.top + 3;
      if (!isBeside && !isAbove) found.push([name, other]);
    }
  }
  return found;
}"""


@dataclass
class Seen:
    """An open page and everything that it did on its own."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium, or set DISTIL_CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    many = [f"a species with quite a long name, number {index}" for index in range(40)]
    long_names = [HOSTILE, *("unbreakable" * 9 + str(index) for index in range(9))]
    return {
        "hostile": write_report(write_run(root / "hostile")),
        "many": write_report(write_run(root / "many", class_names=many, verdict="INCONCLUSIVE", claimed=False)),
        "long": write_report(write_run(root / "long", class_names=long_names, verdict="EQUIVALENT", seeds=(0, 1, 2))),
        "bare": write_report(
            write_run(root / "bare", verdict="NOT TESTED", seeds=(0,), exports=False, gallery=False, summary=False)
        ),
        "reviews": write_report(write_text_classification_run(root / "reviews")),
        "stories": write_report(write_language_model_run(root / "stories", verdict="WORSE")),
    }


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    contexts = []

    def open_page(path: Path, *, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Seen:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.console.append(message.text))
        seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        seen.page.goto(path.as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["hostile", "many", "long", "bare", "reviews", "stories"])
def test_the_page_is_quiet(show: Any, reports: dict[str, Path], name: str) -> None:
    """No console message (a refused style or script would be one), no request but the page, no dialog."""
    seen = show(reports[name])
    seen.page.wait_for_timeout(200)
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("data:image/png;base64,")] == [reports[name].as_uri()]
    assert seen.dialogs == []


def test_a_hostile_class_is_shown_as_text(show: Any, reports: dict[str, Path]) -> None:
    seen = show(reports["hostile"])
    assert HOSTILE in seen.page.inner_text("body")
    assert seen.page.locator("img:not([src^='data:image/png;base64,'])").count() == 0
    assert seen.page.locator("img").count() == 4
    assert seen.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 8)")


def test_a_hostile_text_is_shown_as_text(show: Any, reports: dict[str, Path]) -> None:
    seen = show(reports["reviews"])
    assert HOSTILE in seen.page.locator("blockquote").first.inner_text()
    assert seen.page.locator("img").count() == 0
    assert seen.dialogs == []


def test_the_policy_refuses_a_style_attribute_and_a_script(show: Any, reports: dict[str, Path]) -> None:
    seen = show(reports["bare"])
    colour = seen.page.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", "<p id='probe' style='color: rgb(1, 2, 3)'>probe</p>");
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          return [getComputedStyle(document.getElementById("probe")).color, window.ran === true];
        }"""
    )
    assert colour != ["rgb(1, 2, 3)", False]
    assert colour[0] != "rgb(1, 2, 3)"
    assert colour[1] is False
    assert any("Content Security Policy" in message for message in seen.console)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("name", ["hostile", "many", "long", "bare", "reviews", "stories"])
def test_nothing_is_wider_than_the_screen(show: Any, reports: dict[str, Path], name: str, is_open: bool) -> None:
    page = show(reports[name]).page
    page.evaluate("(open) => document.querySelectorAll('details').forEach((each) => { each.open = open; })", is_open)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width


@pytest.mark.parametrize("name", ["hostile", "many", "long", "bare", "reviews", "stories"])
def test_text_in_charts_is_neither_clipped_nor_overlapping(show: Any, reports: dict[str, Path], name: str) -> None:
    page = show(reports[name]).page
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(CLIPPED_TEXT) == [], width
        assert page.evaluate(OVERLAPPING_TEXT) == [], width


@pytest.mark.parametrize("width", [320, 1280])
def test_text_in_charts_stays_readable(show: Any, reports: dict[str, Path], width: int) -> None:
    page = show(reports["hostile"], width=width).page
    heights = page.evaluate(
        """() => [...document.querySelectorAll("svg.chart text")].map((text) =>
             parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
    )
    assert min(heights) >= 9
    assert max(heights) <= 17


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["hostile", "bare", "reviews", "stories"])
def test_text_has_contrast(show: Any, reports: dict[str, Path], name: str, scheme: str) -> None:
    ratio, text = show(reports[name], scheme=scheme).page.evaluate(CONTRAST)
    assert ratio >= LEAST_CONTRAST, text


def test_dark_and_light_have_their_own_colours(show: Any, reports: dict[str, Path]) -> None:
    read = """() => ["body", ".verdict", ".chart .mark"].flatMap((each) => {
      const style = getComputedStyle(document.querySelector(each));
      return [style.backgroundColor, style.color, style.fill];
    })"""
    light, dark = (show(reports["hostile"], scheme=scheme).page.evaluate(read) for scheme in ("light", "dark"))
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    assert dark[4] != light[4]
    assert dark[8] != light[8]


def test_the_page_is_whole_without_javascript(show: Any, reports: dict[str, Path]) -> None:
    page = show(reports["hostile"], scripts=False).page
    assert page.locator("h1").inner_text() == "BEATS"
    assert page.locator("svg.chart").count() == 10
    summary = page.locator("details.large summary").first
    summary.click()
    assert page.locator("pre").is_visible()


def test_the_first_desktop_screen_shows_verdict_table_and_picture(show: Any, reports: dict[str, Path]) -> None:
    page = show(reports["hostile"]).page
    table, chart = page.locator(".models").bounding_box(), page.locator(".chart").first.bounding_box()
    assert table["y"] + table["height"] <= 800
    assert chart["y"] + chart["height"] <= 800
    assert chart["x"] >= table["x"] + table["width"]


def test_every_value_of_the_first_table_is_seen_at_320_pixels(show: Any, reports: dict[str, Path]) -> None:
    page = show(reports["hostile"], width=320).page
    inside = page.evaluate(
        """() => [...document.querySelectorAll(".models tbody th, .models tbody td")].every((cell) => {
          const box = cell.getBoundingClientRect();
          return box.left >= 0 && box.right <= innerWidth && cell.scrollWidth <= cell.clientWidth + 1;
        })"""
    )
    assert inside


def test_a_wide_table_can_be_scrolled_with_the_keyboard(show: Any, reports: dict[str, Path]) -> None:
    page = show(reports["hostile"], width=320).page
    wide = page.evaluate(
        """() => [...document.querySelectorAll("table, pre")]
             .every((each) => each.closest(".scroll[tabindex='0'][role]"))"""
    )
    assert wide
