"""The page of a report in a real browser: clicks, keys, themes, paper."""

from __future__ import annotations

import json
import re

import pytest
from browser import chromium

import tlkit


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    return tlkit.write_report(run, out=tmp_path_factory.mktemp("seen") / "report", tta="mirror")


@pytest.fixture
def opened(browser, report):
    """Opens the page in a window of its own; whatever it complains of fails the test."""
    windows, faults = [], []

    def open_page(path=report.page, **options):
        window = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        windows.append(window)
        page = window.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: faults.append(one.url) if not local(one.url) else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for one in windows:
        one.close()
    assert faults == []


def local(url):
    return url.startswith(("file:", "data:image/"))


def colour(page, what="body", name="background-color"):
    return page.evaluate(
        "([what, name]) => getComputedStyle(document.querySelector(what)).getPropertyValue(name)",
        [what, name],
    )


def test_a_cell_shows_its_photos_and_gives_the_keyboard_back(opened):
    page = opened()
    cell = page.locator(".matrix td.wrong a").first
    count = int(cell.inner_text())
    assert page.locator(".cell:visible").count() == 0
    cell.click()
    shown = page.locator(".cell:visible")
    assert shown.count() == 1
    assert shown.locator("img").count() == count
    assert shown.locator("img").first.evaluate("one => one.complete && one.naturalWidth > 0")
    assert cell.get_attribute("aria-expanded") == "true"
    page.locator(".matrix td.right a").first.click()
    assert page.locator(".cell:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".cell:visible").count() == 0
    assert page.evaluate("document.activeElement.closest('td').className").startswith("right")


def test_the_matrix_can_be_walked_by_keys_alone(opened):
    page = opened()
    page.locator(".matrix td.right a").first.focus()
    page.keyboard.press("ArrowRight")
    at = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert re.search(r"^\d+ of .* called .*: show photos$", at)
    page.keyboard.press("Enter")
    assert page.locator(".cell:visible").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Close"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == at


def test_without_scripts_the_links_lead_to_the_photos(opened):
    page = opened(java_script_enabled=False)
    assert not page.locator("#theme").is_visible()
    page.locator(".matrix td.wrong a").first.click()
    assert page.locator(".cell:visible").count() == 1


def test_the_theme_is_the_systems_until_the_switch_says_otherwise(opened):
    assert colour(opened(color_scheme="light")) == "rgb(255, 255, 255)"
    page = opened(color_scheme="dark")
    dark = colour(page)
    assert dark != "rgb(255, 255, 255)"
    switch = page.get_by_role("button", name="Dark theme")
    assert switch.get_attribute("aria-pressed") == "true"
    switch.click()
    assert colour(page) == "rgb(255, 255, 255)"
    assert switch.get_attribute("aria-pressed") == "false"
    for _ in range(20):  # the browser writes down what it remembers by and by
        page.wait_for_timeout(500)
        page.reload()
        if colour(page) == "rgb(255, 255, 255)":
            break
    assert colour(page) == "rgb(255, 255, 255)"


def test_on_paper_it_is_light_and_whole(opened):
    page = opened(color_scheme="dark")
    closed = page.locator("details:not([open])").count()
    assert closed
    page.emulate_media(media="print")
    assert colour(page) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("width", [320, 390, 1400])
def test_it_fits_every_width(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_classes_are_sorted_by_a_column(opened):
    page = opened()
    names = page.locator("#part-classes tbody th")
    head = page.get_by_role("button", name="recall")
    head.click()
    up = names.all_inner_texts()
    assert page.locator("#part-classes th[aria-sort=ascending]").inner_text().startswith("recall")
    head.click()
    assert page.locator("#part-classes th[aria-sort=descending]").count() == 1
    assert sorted(up) == sorted(names.all_inner_texts())


def test_everything_has_a_name_for_those_who_listen(opened):
    page = opened()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('img, [role=img], [role=region], main > section')].filter("
        "one => !(one.alt || one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')"
        ")).length"
    )
    assert unnamed == 0
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def contrast(one, other):
    def light(text):
        parts = [int(part) / 255 for part in re.findall(r"\d+", text)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    first, second = sorted((light(one), light(other)))
    return (second + 0.05) / (first + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_in_both_themes(opened, theme):
    """At least 4.5 to 1, as WCAG 2.2 has it (1.4.3)."""
    page = opened(color_scheme=theme)
    behind = colour(page)
    for what in ("body", ".quiet", ".serious", "a[data-cell]", "summary"):
        assert contrast(colour(page, what, "color"), behind) >= 4.5, what


def test_a_page_of_findings_shares_its_looks(opened, parts, tmp_path):
    from tlkit.report.audit_page import page as audit_page

    path = tmp_path / "found.html"
    path.write_text(audit_page(tlkit.check(parts)), encoding="utf-8")
    page = opened(path, color_scheme="dark")
    assert colour(page) != "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark theme").click()
    assert colour(page) == "rgb(255, 255, 255)"


def test_the_numbers_on_the_page_are_those_of_the_json(opened, report):
    told = json.loads((report.folder / "report.json").read_text(encoding="utf-8"))["parts"]
    page = opened()
    accuracy = f"{100 * told['summary']['accuracy']:.1f}\N{NO-BREAK SPACE}%"
    assert page.locator(".big").inner_text() == accuracy
    cells = {tuple(one[:2]): one[2] for one in told["confusion"]["cells"]}
    for (row, column), count in cells.items():
        link = page.locator(f".matrix tbody tr:nth-child({row + 1}) a[href='#cell-{row}-{column}']")
        assert link.inner_text() == str(count)
