"""The page in a real browser: choose, drop, paste and draw a picture; bad and huge files."""

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.load import load_dataset
from tests.browser import CHROMIUM, Page, open_browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as page:
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        page.call("Browser.grantPermissions", permissions=permissions)
        yield page


@pytest.fixture
def page(browser: Page, served) -> Page:
    browser.events.clear()
    browser.open(served.url)
    return browser


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    Image.fromarray(np.asarray(load_dataset("digits").test_images)[3]).save(path)
    return path


def choose(page: Page, path: Path) -> None:
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def check_answer(page: Page, served, picture: bytes) -> None:
    """The page shows what POST /predict gives, and loads and complains of nothing."""
    page.wait_for(f"{STATUS}.startsWith('Answered')")
    _, found = served.predict(picture, "?saliency")
    shown = page.value(
        "[...document.querySelectorAll('ol button')].map(b => [...b.querySelectorAll('span')]"
        ".map(s => s.textContent))"
    )
    expected = [[p["class"], f"{100 * p['probability']:.2f}%"] for p in found["predictions"]]
    assert shown == expected
    page.value("document.querySelectorAll('ol button')[1].click()")
    assert page.value("document.querySelector('#heat').src") == found["predictions"][1]["saliency"]
    page.wait_for("document.querySelector('#heat').naturalWidth === 32")
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    for event in page.events:
        assert event["method"] not in ("Runtime.exceptionThrown", "Log.entryAdded"), event
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            assert url.startswith((served.url, "data:", f"blob:{served.url}")), url


def test_choose(page, served, digit):
    choose(page, digit)
    check_answer(page, served, digit.read_bytes())
    assert page.value("!document.querySelector('#preview').hidden")


def test_drop(page, served, digit):
    data = {"items": [], "files": [str(digit)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=200, y=300, data=data)
    check_answer(page, served, digit.read_bytes())


def test_paste(page, served, digit):
    content = base64.b64encode(digit.read_bytes()).decode()
    page.value(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob({content!r}), c => c.charCodeAt(0));
          const blob = new Blob([bytes], {{ type: 'image/png' }});
          await navigator.clipboard.write([new ClipboardItem({{ 'image/png': blob }})]);
        }})()"""
    )
    keys = {"key": "v", "code": "KeyV", "windowsVirtualKeyCode": 86, "modifiers": 2}
    page.call("Input.dispatchKeyEvent", type="keyDown", commands=["paste"], **keys)
    page.call("Input.dispatchKeyEvent", type="keyUp", **keys)
    check_answer(page, served, digit.read_bytes())  # the browser made another PNG of it


def test_paste_of_text_is_refused(page):
    page.value("navigator.clipboard.writeText('a cat')")
    keys = {"key": "v", "code": "KeyV", "windowsVirtualKeyCode": 86, "modifiers": 2}
    page.call("Input.dispatchKeyEvent", type="keyDown", commands=["paste"], **keys)
    page.wait_for(f"{STATUS} === 'That is no picture.'")


def test_bad_and_huge_files_are_refused_and_the_next_is_answered(page, served, digit, tmp_path):
    bad, huge = tmp_path / "bad.png", tmp_path / "huge.png"
    bad.write_bytes(digit.read_bytes()[:90])
    with huge.open("wb") as file:
        file.truncate(25_000_000)
    choose(page, digit)
    page.wait_for(f"{STATUS}.startsWith('Answered')")
    choose(page, bad)
    page.wait_for(f"{STATUS}.startsWith('the picture cannot be read')")
    assert page.value("document.querySelector('#answer').hidden")  # nothing of the one before
    choose(page, huge)
    page.wait_for(f"{STATUS} === 'The picture has 25.0 MB, the limit is 20.0 MB.'")
    assert page.value("document.querySelector('#status').classList.contains('error')")
    page.events.clear()  # Chromium logs the status 400
    choose(page, digit)
    check_answer(page, served, digit.read_bytes())


def test_draw(page, served):
    box = page.value(
        "(() => { const c = document.querySelector('canvas'); c.scrollIntoView();"
        "const r = c.getBoundingClientRect(); return [r.x, r.y, r.width]; })()"
    )

    def mouse(kind: str, x: float, y: float) -> None:
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[2]}
        buttons = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
        page.call("Input.dispatchMouseEvent", type=kind, **place, **buttons)

    for step, y in enumerate(np.linspace(0.3, 0.7, 9)):
        mouse("mouseMoved" if step else "mousePressed", 0.5, y)
    mouse("mouseReleased", 0.5, 0.7)
    page.wait_for(f"{STATUS}.startsWith('Answered')")
    drawn = page.value("document.querySelector('#seen').src")
    check_answer(page, served, base64.b64decode(drawn.partition(",")[2]))
    import io

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))))
    assert pixels.shape == (32, 32, 3) and pixels[16, 16].min() > 200 and pixels[:, 2].max() < 50
    rows = np.flatnonzero(pixels[:, 16, 0] > 128)
    assert 2 <= rows[0] <= 5 and 26 <= rows[-1] <= 29  # a tenth is left free
