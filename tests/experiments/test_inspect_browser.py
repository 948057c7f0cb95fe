"""The page of saved rollouts in a browser: keys, filters, pairs, links, and four looks.

Needs Chromium and `pip install playwright`, see CONTRIBUTING.md.
"""

import importlib
import json
import shutil
from contextlib import contextmanager

import pytest

from asyppo_jax.runs.rollout_files import SavedAnswer, write_rollout_file
from experiments.inspect.page import read_rollouts, render
from tests.tiny import make_saved_answer

pytestmark = pytest.mark.browser
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TEXTS = ["First", " -", " 3", " wait", "=", " end", "<end>"]
COLOURS = ["advantage", "value", "sigma", "entropy", "surprise"]


def answer(group: int, sample: int, **changes) -> SavedAnswer:
    """Seven tokens; σ is largest at token 3 of the second sample to the second problem."""
    n, seed = len(TEXTS), 2 * group + sample
    values = [[0.1 * i + 0.05 * seed for i in range(n)], [0.1 * i for i in range(n)]]
    values[0][3] += 0.1 * seed
    fields = {
        "group": group,
        "problem": f"problem {'AB'[group]}",
        "reward": float(sample),
        "critic": sample,
        "tokens": list(range(n)),
        "token_texts": TEXTS if sample else [*TEXTS[:5], " stop", "<end>"],
        "values": values,
        "value_std": [abs(x - y) / 2 for x, y in zip(*values, strict=True)],
        "advantages": [(-1) ** i * 0.1 * (i + seed) for i in range(n)],
        "returns": [float(sample)] * n,
        "advantage_mask": [i % 3 != 1 for i in range(n)],
        "entropy_mask": [i % 3 != 2 for i in range(n)],
    }
    per_token = {
        name: [-0.1 * i - 0.1 for i in range(n)] for name in ("log_probs", "old_log_probs")
    }
    return make_saved_answer(
        **fields | per_token | {"entropy": [0.1 * i for i in range(n)]} | changes
    )


def held_out(group: int, step: int) -> SavedAnswer:
    of_training = ("advantages", "returns", "advantage_mask", "entropy_mask")
    changes = {name: [] for name in of_training} | {"critic": None, "held_out": True, "step": step}
    right = step > 5 and group == 0  # and its text is another one then
    changes |= {"token_texts": TEXTS} if right else {}
    return answer(group, 0, **changes, reward=float(right))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "my run"
    for step in (3, 6):
        answers = [answer(group, sample, step=step) for group in (0, 1) for sample in (0, 1)]
        write_rollout_file(run / "rollouts" / f"step_{step:08}.jsonl", answers)
    for step in (0, 5, 10):
        answers = [held_out(group, step) for group in (0, 1)]
        write_rollout_file(run / "rollouts" / f"heldout_{step:08}.jsonl", answers)
    (run / "config.json").write_text(json.dumps({"seed": 7}))
    file = run.parent / "page.html"
    file.write_text(render(read_rollouts([str(run)])))
    return file


@pytest.fixture(scope="module")
def browser():
    """Chromium with an empty profile, which playwright makes and removes."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("tests with the marker browser need Chromium: apt-get install chromium")
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ImportError:
        pytest.fail("tests with the marker browser need playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser, address: str, width: int = 1400, height: int = 900, scheme: str = "light"):
    """A page of its own; what it logs or throws fails the test."""
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=width < 500)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.goto(address)
    yield page
    context.close()
    assert not problems


@pytest.fixture
def page(browser, page_file):
    with open_page(browser, page_file.as_uri()) as page:
        yield page


def address(page) -> dict[str, str]:
    pairs = page.evaluate("[...new URLSearchParams(location.hash.slice(1))]")
    return dict(pairs)


def rewards(page) -> list[str]:
    return [text.split()[-1] for text in page.locator("article .about b").all_text_contents()]


def tip(page) -> str:
    assert page.locator("#tip").is_visible()
    return page.locator("#tip").inner_text()


def test_the_run_is_named_in_the_title_and_critics_are_numbered_from_0(page):
    assert page.title() == "my run · steps 0, 3, 5, 6, 10 · rollouts"
    assert page.locator("h1").inner_text() == "my run"
    assert page.locator("#settings").inner_text() == "seed 7"
    facts = " ".join(page.locator(".about").all_text_contents())
    assert "critic 0 learns from it" in facts and "critic 1 learns from it" in facts
    assert "critic 2" not in page.locator("body").inner_text()


def test_keys_colour_the_tokens_and_move_between_them(page):
    colours = set()
    for key, colour in enumerate(COLOURS, start=1):
        page.keyboard.press(str(key))
        assert address(page).get("colour", "advantage") == colour
        colours.add(page.locator("article .tokens span").nth(4).evaluate("e => e.style.background"))
    assert len(colours) == 5
    page.locator("article .tokens span").first.click()
    for key, token in [("ArrowRight", "0.t3.0.0-1"), ("ArrowDown", "0.t3.0.1-0")]:
        page.keyboard.press(key)
        assert address(page)["token"] == token
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert address(page)["token"] == "0.t3.0.0-1" and "token 2 of 7" in tip(page)
    page.keyboard.press("Escape")
    assert "token" not in address(page) and not page.locator("#tip").is_visible()


def test_a_key_jumps_to_the_most_disagreed_token_and_on_to_the_next(page):
    page.keyboard.press("3")
    page.keyboard.press("n")
    assert address(page)["token"] == "0.t3.1.1-3"  # σ = (0.15 + 0.3) / 2
    assert "disagreement σ\n0.225" in tip(page) and "value, critic 0\n0.750" in tip(page)
    assert page.locator("#rank").inner_text() == "largest σ 1 of 98"
    page.keyboard.press("n")
    assert address(page)["token"] == "0.t6.1.1-3"
    page.keyboard.press("p")
    page.keyboard.press("p")
    assert page.locator("#rank").inner_text() == "largest σ 98 of 98"
    page.keyboard.press("1")
    page.locator("#next").click()
    assert address(page)["token"] == "0.t3.1.1-6" and "advantage\n+0.900" in tip(page)


def test_filters_and_orders_change_the_list_and_a_reload_keeps_them(page):
    assert len(rewards(page)) == 14
    page.locator("#kind").select_option("training")
    page.locator("#reward").select_option(label="1 (5)")
    assert rewards(page) == ["1"] * 4 and page.locator("#shown").inner_text() == "4 of 14 shown"
    page.locator("#reward").select_option("")
    page.locator("#step").select_option("6")
    page.locator("#sort").select_option("low_reward")
    assert rewards(page) == ["0", "0", "1", "1"]
    page.locator("#sort").select_option("sigma")
    sigmas = [text.split("mean σ ")[1][:5] for text in page.locator(".about").all_text_contents()]
    assert sigmas == sorted(sigmas, reverse=True) and len(set(sigmas)) == 4
    assert page.locator("article .problem").first.inner_text() == "problem B step 6"
    assert address(page) == {"kind": "training", "step": "6", "sort": "sigma"}
    page.reload()
    assert len(rewards(page)) == 4 and page.locator("#sort").input_value() == "sigma"


def test_a_search_leaves_the_answers_that_have_the_text_and_marks_it(page):
    page.keyboard.press("/")
    page.keyboard.type("= EnD")
    page.wait_for_function("document.querySelectorAll('article').length === 5")
    lines = page.locator("section .line").all_text_contents()
    assert lines[0] == "step 3 · reference 2 · 2 samples · mean reward 0.50"  # of both samples
    assert page.locator(".found").all_inner_texts() == ["=", " end"] * 5
    page.keyboard.press("Enter")
    assert address(page) == {"find": "= EnD", "token": "0.t3.0.1-4"}
    page.keyboard.press("Enter")
    assert address(page)["token"] == "0.t3.1.1-4" and '"="' in tip(page)
    page.locator("#find").fill("nowhere")
    page.wait_for_function("document.querySelector('main').innerText === 'No answer is left.'")
    page.locator("#find").fill("problem b")
    page.wait_for_function("document.querySelectorAll('article').length === 7")


def test_the_same_prompt_stands_side_by_side_at_two_steps(page):
    page.locator("#view label", has_text="Side by side").click()
    heads = page.locator("h3 b")
    assert heads.all_inner_texts() == ["step 0", "step 10"] * 2
    assert page.locator("#shown").inner_text() == (
        "2 prompts: mean reward 0.00 → 0.50; 1 gained, 0 lost"
    )
    left, right = (page.locator(".pair > div").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    # Held-out answers have no advantages, so they show their values.
    assert page.locator("#quantities input:disabled").count() == 1
    assert page.locator("#quantities input:checked").input_value() == "value"
    page.locator("#find").fill("= end")  # it is on one side, and both stay
    page.wait_for_function("document.querySelectorAll('article').length === 2")
    page.locator("#find").fill("")
    page.wait_for_function("document.querySelectorAll('article').length === 4")
    page.locator("#left").select_option(label="step 5")
    assert heads.all_inner_texts() == ["step 5", "step 10"] * 2
    page.locator("#right").select_option(label="step 5")
    assert heads.all_inner_texts() == ["step 10", "step 5"] * 2  # never the same on both sides
    assert address(page) == {"view": "pairs", "left": "0.10", "right": "0.5"}


def test_a_link_opens_the_token_that_it_names(page, page_file):
    page.goto(page_file.as_uri() + "#colour=entropy&sort=length&token=0.t6.1.0-2")
    page.reload()  # a new address in the same page is followed as well
    assert '" 3" id 2, token 3 of 7' in tip(page)
    assert page.evaluate("document.activeElement.textContent") == " 3"
    page.evaluate("location.hash = '#token=0.h5.0.0-5&colour=value'")
    page.wait_for_function("document.activeElement.textContent === ' stop'")
    assert "no step trains on it" in tip(page)
    page.goto(page_file.as_uri() + "#step=99&colour=none&left=x&token=y&view=pairs&other=1")
    page.reload()
    assert address(page) == {"view": "pairs", "colour": "none"}  # what it has not is left out
    assert page.locator("article").count() == 4


def test_the_value_line_marks_the_token_under_the_pointer(page):
    chart = page.locator(".chart svg").first.bounding_box()
    page.mouse.move(chart["x"] + chart["width"] * 4.5 / 7, chart["y"] + 20)
    assert "token 5 of 7" in tip(page)
    assert page.locator(".pointed").inner_text() == "="
    ticks = page.locator(".chart").first.locator(".tick").all_inner_texts()
    assert ticks == ["0", "0.5"]  # the highest value is 0.75
    page.locator("article .tokens span").nth(2).hover()
    cursor = page.locator(".chart").first.locator("i").bounding_box()
    assert abs(cursor["x"] - chart["x"] - chart["width"] * 2.5 / 7) < 2


def test_a_masked_token_is_not_struck_and_one_mark_is_on_at_first(page):
    styles = page.locator("article .tokens span").evaluate_all(
        "spans => spans.slice(0, 7).map((e) => { const s = getComputedStyle(e);"
        " return [s.textDecorationLine, s.borderTopWidth, s.borderBottomWidth]; })"
    )
    assert styles == [["none", "2px" if i % 3 == 1 else "0px", "0px"] for i in range(7)]
    page.locator("#entropy").click()
    page.locator("#policy").click()
    assert address(page) == {"marks": "entropy"}
    borders = (
        page.locator("article .tokens span")
        .nth(2)
        .evaluate(
            "e => [getComputedStyle(e).borderTopWidth, getComputedStyle(e).borderBottomWidth]"
        )
    )
    assert borders == ["0px", "2px"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("view", ["", "pairs"])
def test_nothing_sticks_out_in_any_look(browser, page_file, width, scheme, view):
    address = f"{page_file.as_uri()}#view={view}"
    with open_page(browser, address, width, 844, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.slice(4))")
        assert red < 50 if scheme == "dark" else red > 200
        columns = page.locator(".pair > div")
        if view:
            first, second = (columns.nth(i).bounding_box() for i in (0, 1))
            assert (first["x"] == second["x"]) == (width == 390)  # stacked on a phone


def test_on_a_phone_the_sheet_shows_the_token_and_can_be_closed(browser, page_file):
    with open_page(browser, page_file.as_uri(), 390, 844) as page:
        page.locator("article").nth(5).locator(".tokens span").nth(3).tap()
        page.keyboard.press("ArrowRight")
        assert "token 5 of 7" in tip(page)
        sheet, token = (page.locator(x).bounding_box() for x in ("#tip", ".pointed"))
        bar = page.locator(".bar").bounding_box()
        assert bar["y"] + bar["height"] <= token["y"]
        assert token["y"] + token["height"] <= sheet["y"]
        assert sheet["y"] + sheet["height"] == 844 and sheet["width"] == 390
        assert bar["y"] + bar["height"] < 90  # what stays of the bar
        page.locator("#tip button").tap()
        assert not page.locator("#tip").is_visible() and address(page) == {}
