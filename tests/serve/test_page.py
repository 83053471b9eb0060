"""The page, as a person uses it, in Chromium."""

import base64
import csv
import io
import re
import shutil
from pathlib import Path

import browser
import pytest
from playwright.sync_api import expect

from tlkit.classifier import load

TOKEN = "a-token-of-enough-letters"


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as found:
        yield found


@pytest.fixture
def visit(chromium, address):
    """A page of a server that was started so; at the end it has said nothing of an error."""
    opened = []
    said = []

    def visited(*args, dark=False, width=1200, **named):
        scheme = "dark" if dark else "light"
        page = chromium.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True
        )
        opened.append(page)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda one: said.append(one.text) if "Security" in one.text else None)
        page.goto(address(*args, **named))
        return page

    yield visited
    for page in opened:
        page.close()
    assert said == []


@pytest.fixture
def folder(photos, tmp_path):
    """Photos, in a folder and one below it, and what is none."""
    (tmp_path / "mine" / "below").mkdir(parents=True)
    for number, path in enumerate(photos[::3]):
        place = tmp_path / "mine" / ("below" if number % 2 else "")
        shutil.copy(path, place / f"{path.parent.name}-{path.name}")
    (tmp_path / "mine" / "broken.png").write_text("no image")
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    (tmp_path / "mine" / ".hidden.png").write_text("no image")
    return tmp_path / "mine"


def cards(page):
    return page.locator(".card:visible")


def answered(page, count):
    """Wait until so many cards are there and every one has its answer, or a reason."""
    expect(page.locator(".card")).to_have_count(count)
    expect(page.locator("#progress")).to_be_hidden()


def drop(page, *paths):
    """As the browser drops files and folders of the disk."""
    tool = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(one) for one in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tool.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})


def shares(card):
    """The bars of a card: class and what stands beside it."""
    names = card.locator(".bars .name").all_text_contents()
    return dict(zip(names, card.locator(".bars .share").all_text_contents(), strict=True))


def test_a_dropped_image_gets_the_answer_of_predict(visit, head, photos):
    page = visit()
    drop(page, photos[0])
    answered(page, 1)
    (wanted,) = load(head).predict(photos[0], engine="eager", device="cpu")
    expect(page.locator(".card .answer")).to_have_text(wanted.label)
    assert shares(page.locator(".card")) == {
        name: f"{100 * likely:.1f} %" for name, likely in wanted.top(3)
    }
    widths = page.locator(".fill").evaluate_all(
        "all => all.map(one => parseFloat(one.style.width))"
    )
    assert widths == pytest.approx([100 * likely for _, likely in wanted.top(3)], abs=1e-3)


def test_a_pasted_image_is_answered(visit, photos):
    page = visit()
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const held = new DataTransfer();
            held.items.add(new File([bytes], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: held }));
        }""",
        base64.b64encode(photos[-1].read_bytes()).decode(),
    )
    answered(page, 1)
    expect(page.locator(".card .path")).to_have_text("pasted-1-image.png")
    expect(page.locator(".card .answer")).to_have_text("red")


def test_another_policy_asks_anew(visit, head, photos):
    page = visit()
    page.set_input_files("#files", photos[3])
    answered(page, 1)
    with page.expect_response(re.compile("tta=ten")):
        page.get_by_label("Test-time views").select_option("ten")
    answered(page, 1)
    (wanted,) = load(head).predict(photos[3], tta="ten", engine="eager", device="cpu")
    assert shares(page.locator(".card")) == {
        name: f"{100 * likely:.1f} %" for name, likely in wanted.top(3)
    }
    expect(page.locator("#tta-about")).to_have_text("five and their mirrors")


def test_the_map_is_shown_and_taken_away(visit, photos):
    page = visit()
    page.set_input_files("#files", photos[:2])
    answered(page, 2)
    switch = page.get_by_role("switch", name="Activation map")
    switch.focus()
    page.keyboard.press("Space")
    overlays = page.locator(".overlay:visible")
    expect(overlays).to_have_count(2)
    assert overlays.first.evaluate("async (one) => (await one.decode(), one.naturalWidth)") >= 448
    expect(overlays.first).to_have_attribute("alt", re.compile("where blue was seen on"))
    switch.uncheck(force=True)
    expect(overlays).to_have_count(0)


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_folder_is_a_gallery_with_what_is_broken_in_it(visit, folder, way):
    page = visit()
    if way == "dropped":
        drop(page, folder)
    else:
        page.set_input_files("#folder", folder)
    answered(page, 9)
    paths = page.locator(".card .path").all_text_contents()
    assert paths == sorted(paths)
    assert "mine/below/blue-003.png" in paths
    broken = page.locator(".card.wrong")
    expect(broken).to_have_count(1)
    expect(broken.locator(".path")).to_have_text("mine/broken.png")
    expect(broken.locator(".reason")).to_have_text("not an image that Pillow knows")
    expect(page.locator("#status")).to_have_text("9 images · 1 without an answer")


def test_the_gallery_is_filtered_by_class_and_certainty(visit, folder, head):
    page = visit({"reject_below": "0.9999"})
    page.set_input_files("#folder", folder)
    answered(page, 9)
    found = load(head).predict(folder, reject_below="0.9999", engine="eager", device="cpu")
    good = [one for one in found if hasattr(one, "label")]
    page.get_by_label("Class").select_option("red")
    expect(cards(page)).to_have_count(sum(one.top(1)[0][0] == "red" for one in good))
    page.get_by_label("Class").select_option("all")
    for choice, fits in {
        "99 % or more": lambda one: one.top(1)[0][1] >= 0.99,
        "below 90 %": lambda one: one.top(1)[0][1] < 0.9,
        "unsure": lambda one: one.unsure,
    }.items():
        page.get_by_label("Certainty").select_option(choice)
        count = sum(map(fits, good))
        expect(cards(page)).to_have_count(count)
        expect(page.locator("#nothing")).to_be_visible(visible=count == 0)
    page.get_by_label("Certainty").select_option("no answer")
    expect(cards(page).locator(".path")).to_have_text("mine/broken.png")
    page.get_by_label("Certainty").select_option("any")
    page.get_by_label("Order").select_option("least certain first")
    likely = [
        float(one.removesuffix(" %"))
        for one in page.locator(".bars li:first-child .share").all_text_contents()
    ]
    assert likely == sorted(likely)


def test_cards_that_stay_as_they_are_are_not_touched(visit, folder):
    page = visit()
    page.set_input_files("#folder", folder)
    answered(page, 9)
    order = page.get_by_label("Order")
    order.select_option("least certain first")
    page.get_by_label("Class").select_option("red")
    page.evaluate(
        """() => {
            window.touched = [];
            const cards = document.querySelectorAll(".card");
            const seen = new MutationObserver((all) => window.touched.push(...all));
            for (const one of cards) seen.observe(one, { attributeFilter: ["hidden"] });
            seen.observe(document.getElementById("gallery"), { childList: true });
        }"""
    )
    for one in ("#class", "#order"):
        page.locator(one).dispatch_event("change")
    assert page.evaluate("window.touched.length") == 0
    order.select_option("as added")
    assert page.evaluate("window.touched.length") > 0


def test_the_order_is_kept_as_answers_come(visit, folder):
    page = visit()
    page.get_by_label("Order").evaluate("(one) => (one.value = 'doubtful')")
    page.set_input_files("#folder", folder)
    answered(page, 9)
    likely = [
        float(one.removesuffix(" %"))
        for one in page.locator(".bars li:first-child .share").all_text_contents()
    ]
    assert likely == sorted(likely)


def test_the_csv_is_that_of_predict(visit, folder, head, run):
    page = visit({"reject_below": "0.9999", "reject_unlike": 0.01})
    page.set_input_files("#folder", folder)
    answered(page, 9)
    with page.expect_download() as waited:
        page.get_by_role("button", name="CSV").click()
    found = list(csv.reader(io.StringIO(Path(waited.value.path()).read_text())))
    result = run(
        "predict", folder, "--head", head, "--format", "csv", "--engine", "eager",
        "--device", "cpu", "--reject-below", "0.9999", "--reject-unlike", "0.01",
    )  # fmt: skip
    wanted = list(csv.reader(io.StringIO(result.stdout)))
    assert found[0] == wanted[0]
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert one[0] == str(Path(other[0]).relative_to(folder.parent))
        for cell, expected in zip(one[1:], other[1:], strict=True):
            try:
                assert float(cell) == pytest.approx(float(expected), abs=1e-3)
            except ValueError:
                assert cell == expected


def test_a_server_that_has_gone_is_told_and_asked_again(visit, photos):
    page = visit()
    page.route("**/api/predict*", lambda route: route.abort())
    page.set_input_files("#files", photos[0])
    expect(page.locator(".card .reason")).to_contain_text("The server did not answer")
    page.unroute("**/api/predict*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card .answer")).to_have_text("blue")
    expect(page.locator(".card .reason")).to_be_hidden()


def test_one_who_is_told_to_come_again_does(visit, photos):
    page = visit()
    turned = []

    def busy(route):
        if turned:
            route.continue_()
        else:
            turned.append(True)
            route.fulfill(status=429, headers={"Retry-After": "1"}, body="{}")

    page.route("**/api/predict*", busy)
    page.set_input_files("#files", photos[0])
    answered(page, 1)
    expect(page.locator(".card .answer")).to_have_text("blue")
    assert turned


def test_the_token_is_asked_for_and_sent(visit, photos):
    page = visit(token=TOKEN)
    dialog = page.get_by_role("dialog")
    for word in ("another-token-altogether", TOKEN):
        expect(dialog).to_be_visible()
        page.get_by_role("textbox", name="Token").fill(word)
        page.keyboard.press("Enter")
    expect(page.locator("#head")).to_contain_text("3 classes")
    page.set_input_files("#files", photos[0])
    answered(page, 1)
    page.get_by_role("switch", name="Activation map").check(force=True)
    expect(page.locator(".overlay:visible")).to_have_count(1)


def test_the_token_is_asked_for_until_it_is_one_that_can_be_sent(visit):
    page = visit(token=TOKEN)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    field = page.get_by_role("textbox", name="Token")
    for word in ("schlüssel-und-schloss", "two words of it"):
        field.fill(word)
        page.keyboard.press("Enter")
        assert field.evaluate("(one) => one.validity.patternMismatch")
        assert page.evaluate("sessionStorage.getItem('token')") is None
    field.fill(f" {TOKEN} ")
    page.keyboard.press("Enter")
    expect(page.locator("#head")).to_contain_text("3 classes")
    expect(dialog).to_be_hidden()


def test_trying_again_is_offered_only_while_it_would_help(visit, photos):
    page = visit()
    page.route("**/api/predict*", lambda route: route.abort())
    page.set_input_files("#files", photos[0])
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_visible()
    page.unroute("**/api/predict*")
    page.route("**/api/predict*", lambda route: None)
    again.click()
    expect(again).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(visit, photos):
    page = visit(most_mb=0.001)
    page.set_input_files("#files", photos[0])
    expect(page.locator(".card .reason")).to_contain_text("at most 0.001 MB are taken")


def test_clear_leaves_nothing(visit, photos):
    page = visit()
    page.set_input_files("#files", photos[:3])
    answered(page, 3)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#tools")).to_be_hidden()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window_and_all_can_be_read(visit, folder, dark, width):
    page = visit(dark=dark, width=width)
    page.set_input_files("#folder", folder)
    answered(page, 9)
    page.get_by_label("Test-time views").select_option("vgg150")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        """() => ["h1", ".answer", ".path", ".reason", "#status", "#csv", "select"].map((one) => {
            const style = getComputedStyle(document.querySelector(one));
            return [style.color, getComputedStyle(document.body).backgroundColor];
        })"""
    )
    for ink, ground in colours:
        one, other = (luminance(colour) for colour in (ink, ground))
        # WCAG 2.2, 1.4.3
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 4.5


def luminance(colour):
    """Relative, of rgb(r, g, b), as WCAG defines it."""
    parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(w * one for w, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_control_has_a_name_and_the_keyboard_reaches_it(visit, photos):
    page = visit()
    page.set_input_files("#files", photos[0])
    answered(page, 1)
    page.locator("h1").click()
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == [
        "files", "folder", "tta", "map", "class", "certainty", "order", "csv", "clear",
    ]  # fmt: skip
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("main input, main select, main button")].filter(
            (one) => !(one.labels?.[0]?.textContent || one.textContent).trim())
            .map((one) => one.id)"""
    )
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
