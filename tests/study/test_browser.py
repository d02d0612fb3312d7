"""The page of a study in a browser: themes, widths, keyboard, paper, and without its script."""

import re
import shutil
import xml.etree.ElementTree

import pytest
from studies import made_study

import thermogen as tg

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.further,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
]

# Contrast of every piece of text against what lies behind it, by WCAG 2: the lowest, and where.
CONTRAST = """() => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  let lowest = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const unseen = !element.checkVisibility() || /SCRIPT|STYLE|OPTION/.test(element.tagName);
    if (unseen || !walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(element);
    const ink = parts(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, element.outerHTML.slice(0, 120)];
  }
  return lowest;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(tg.study.render(made_study(n_states=30)))
    return path


@pytest.fixture
def opened(browser, path):
    """Opens the page; at the end nothing was requested, and nothing went wrong."""
    contexts, heard = [], []

    def open_page(width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [x for x in heard if x != path.as_uri() and not x.startswith(("data:", "blob:"))] == []


def _shown(page):
    """Numbers of the states that are listed, from the top."""
    return [int(x) for x in page.locator("#states tbody tr:visible > th").all_inner_texts()]


def test_the_page_is_small_and_every_picture_is_told(path, opened):
    assert path.stat().st_size < 3e6
    page = opened()
    for image in page.locator("img").all():
        assert len(image.get_attribute("alt")) > 8
    drawings = page.locator("figure svg").all()
    assert len(drawings) >= 9
    for drawing in drawings:
        assert drawing.get_attribute("role") == "img"
        assert len(drawing.get_attribute("aria-label")) > 20
    assert page.locator("figure").count() == len(drawings)


@pytest.mark.parametrize("width", [360, 400, 800, 1280])
def test_no_page_is_wider_than_its_window(width, opened):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Nor is a table: no column of it is out of sight.
    for table in page.locator("table").all():
        box = table.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    if width <= 400:
        cell = page.locator("#states td[data-label='free energy F']").first
        assert float(cell.evaluate("cell => parseFloat(getComputedStyle(cell).fontSize)")) >= 12
        label = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        assert label == '"free energy F"'


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(theme, opened):
    ratio, where = opened(color_scheme=theme).evaluate(CONTRAST)
    assert ratio >= 4.5, where


def test_the_dark_is_dark_with_its_figures(opened):
    grounds, lines = [], []
    for theme in ("light", "dark"):
        page = opened(color_scheme=theme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        line = page.locator("#figure-tree .branches path").first
        lines.append(line.evaluate("line => getComputedStyle(line).stroke"))
    assert grounds[0] != grounds[1]
    assert lines == ["rgb(31, 58, 95)", "rgb(169, 196, 232)"]


def test_every_control_is_reached_by_the_tab_key(opened):
    page = opened()
    seen = []
    for _ in range(400):
        page.keyboard.press("Tab")
        what = page.evaluate(
            "(e => e === document.body ? '' : e.className + ' ' + e.id + ' ' + e.ariaLabel + ' ' + "
            "(getComputedStyle(e).outlineStyle === 'none' ? 'unseen' : 'seen'))"
            "(document.activeElement)"
        )
        if not what:
            break
        seen.append(what)
    assert seen[0].startswith("skip ") and not any(what.endswith("unseen") for what in seen)
    for part in (" sort ", " descending ", " filter ", "State 0", "Save the figure tree", "term "):
        assert any(part in what for what in seen), part
    page.evaluate("document.activeElement.blur()")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#findings"


def test_states_are_sorted_and_filtered(opened):
    page = opened()
    assert _shown(page) == list(range(25))
    assert page.locator("#count").inner_text() == "25 of 30 states"
    page.get_by_role("button", name="Show all 30 states").click()
    assert _shown(page) == list(range(30))
    page.locator("#descending").check()
    assert _shown(page) == list(range(29, -1, -1))
    page.locator("#sort").select_option("samples")
    counts = page.locator("#states td[data-sort='samples']:visible").all_inner_texts()
    assert [int(x) for x in counts] == sorted(map(int, counts), reverse=True)
    heads = page.locator("#states thead th[aria-sort='descending']").all_inner_texts()
    assert heads == ["samples"]
    page.locator("#sort").select_option("free-energy")
    page.locator("#filter").select_option("1")
    assert _shown(page) == [1] and page.locator("#count").inner_text() == "1 state"
    page.locator("#filter").select_option("none")
    assert _shown(page) == list(range(29, 19, -1))  # twenty were tested


def test_a_state_shows_its_samples_and_its_branch(opened):
    page = opened()
    page.locator("#states tbody tr").nth(1).hover()
    panel = page.locator("#panel")
    assert "State 1, bound state 1" in panel.inner_text()
    assert "1 sample falls to it" in panel.inner_text() and "of class" in panel.inner_text()
    assert panel.locator("img[src^='data:image/png']").count() == 2
    branch = page.locator("#states tbody tr").nth(1).get_attribute("data-branch").split()
    assert page.locator("#figure-tree .way").count() == len(branch) > 1
    assert panel.locator(".way").count() == len(branch)
    page.get_by_role("button", name="State 3", exact=True).focus()
    assert "State 3" in panel.inner_text() and page.locator(".chosen").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".way, .chosen").count() == 0


def test_terms_are_told_where_they_stand(opened):
    page = opened()
    term, tip = page.locator(".term").first, page.locator(".tip")
    assert not tip.is_visible()
    term.hover()
    assert tip.is_visible() and len(tip.inner_text()) > 40
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    term.focus()
    assert tip.inner_text() == page.locator("#def-beta").inner_text()
    for each in page.locator(".term").all():
        assert page.locator(f"#{each.get_attribute('aria-describedby')}").count() == 1
        assert page.locator(each.get_attribute("href")).count() == 1


def test_a_figure_is_saved_as_a_whole_drawing(opened):
    page = opened(color_scheme="dark", accept_downloads=True)
    with page.expect_download() as download:
        page.locator(".download[data-name='tree']").click()
    assert download.value.suggested_filename == "tree.svg"
    drawings = page.evaluate("all('figure svg').map(saved)")
    assert download.value.path().read_text() in drawings and len(drawings) >= 9
    for text in drawings:
        root = xml.etree.ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width").endswith("pt")
        assert "var(" not in text
        ids = re.findall(r' id="([^"]*)"', text)
        assert set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', text)) <= set(ids)


def test_without_its_script_the_page_is_whole(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("#states tbody tr:visible").count() == 30
    for part in (".controls", "#panel", ".download", "#more", ".scripted"):
        assert page.locator(f"{part}:visible").count() == 0
    assert page.locator("#states tbody button").count() == 0
    page.locator(".term").first.click()
    assert page.url.endswith("#term-beta")


def test_paper_bears_no_controls(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    for part in (".controls", ".download", "nav", "#panel", "#more", ".skip"):
        assert page.locator(f"{part}:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    line = page.locator("#figure-tree .branches path").first
    assert line.evaluate("line => getComputedStyle(line).stroke") == "rgb(31, 58, 95)"
    assert page.pdf().startswith(b"%PDF")
