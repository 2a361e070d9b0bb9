#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The HTML page in a real browser, opened from disk: no errors, hover, selection, keyboard, themes, units of time, a large
schedule.

page.py TOOL [FOLDER]   TOOL is the pipesched program; screenshots are kept in FOLDER if one is given
"""
import pathlib
import subprocess
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


def check(what, condition):
    if not condition:
        sys.exit(f"FAILED: {what}")


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1500,1150"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options)


class Page:
    def __init__(self, driver, path):
        self.driver = driver
        driver.get(path.as_uri())
        self.canvas = driver.find_element(By.ID, "canvas")
        self.settle()

    def settle(self):  # two frames: one may be in the making
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def js(self, expression):
        return self.driver.execute_script("return " + expression)

    def drawn(self):
        return int(self.canvas.get_attribute("data-drawn"))

    def middle_of(self, panel, rank, cell):  # relative to the centre of the canvas, as the mouse wants it
        x, y = self.js(f"(b => [(b.x0 + b.x1) / 2 - size.w / 2, b.y + ROW / 2 - size.h / 2])(box({panel}, [{rank}, {cell}]))")
        return int(x), int(y)

    def mouse(self, panel, rank, cell):
        return ActionChains(self.driver).move_to_element_with_offset(self.canvas, *self.middle_of(panel, rank, cell))

    def hover(self, panel, rank, cell):
        self.mouse(panel, rank, cell).perform()
        self.settle()
        tip = self.driver.find_element(By.ID, "tip")
        return tip.text if tip.is_displayed() else ""

    def click(self, panel, rank, cell):
        self.mouse(panel, rank, cell).click().perform()
        self.settle()
        return self.chosen()

    def chosen(self):
        return self.driver.find_element(By.ID, "chosen").text

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()
        self.settle()

    def no_errors(self):
        errors = [e for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        check(f"the console is silent: {errors}", not errors)


def main():
    tool = sys.argv[1]
    shots = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        small, large = pathlib.Path(folder, "compare.html"), pathlib.Path(folder, "large.html")
        subprocess.run([tool, "compare", "--pp", "8", "--micro", "20", "--transfer", "0.25", "--families", "dualpipe,zb1p,1f1b",
                        "--format", "html", "--output", small], check=True)
        subprocess.run([tool, "simulate", "--family", "dualpipev", "--pp", "64", "--micro", "1024", "--format", "html",
                        "--output", large], check=True)
        units = {}
        for name, costs in {"deepseek_v3": ["--costs", "deepseek_v3"], **{unit: times(unit) for unit in ("1e-290", "1e-6", "1", "1e9", "1e300", "0")}}.items():
            units[name] = pathlib.Path(folder, f"{name}.html")
            subprocess.run([tool, "simulate", "--family", "dualpipe", "--pp", "4", "--micro", "8", *costs, "--format", "html",
                            "--output", units[name]], check=True)
        driver = browser()
        try:
            run(driver, small, large, shots)
            for name, path in units.items():
                fitted(driver, name, path, shots)
        finally:
            driver.quit()
    print("opened from disk, hovered, chosen, zoomed, themed: all as expected")


def times(unit):
    return ["--forward", unit, "--backward-input", unit, "--backward-weight", unit]


def fitted(driver, name, path, shots):
    """Whatever the unit of time, the page opens fitted, stays so when the window changes, and zooms from there."""
    driver.set_window_size(1500, 800)
    page = Page(driver, path)
    check("the notes say what the costs are of", "costs are per stage" in driver.find_element(By.ID, "notes").text)
    notes = driver.execute_script("const n = document.getElementById('notes'), old = n.innerHTML; n.innerHTML = ''; return old")
    check("no notes, no room for them", not driver.find_element(By.ID, "notes").is_displayed())
    driver.execute_script("document.getElementById('notes').innerHTML = arguments[0]", notes)
    if shots:
        driver.save_screenshot(str(shots / f"unit_{name}.png"))
    scales = name != "0"  # nothing takes time there

    def fills():
        page.settle()
        right, width = page.js("X(longest)"), page.js("size.w")
        return not scales or page.js("view.from") == 0 and width - 20 <= right <= width

    check(f"{name}: fitted when it opens", fills())
    if scales:
        check(f"{name}: all cells are drawn", page.drawn() == page.js("DATA[0].rows.reduce((n, r) => n + r.names.length, 0)"))
    for width in (700, 1100):
        driver.set_window_size(width, 800)
        page.settle()
        check(f"{name}: fitted in a window of {width}", fills())
    before = page.js("view.scale")
    page.press("+")
    check(f"{name}: plus zooms in", not scales or abs(page.js("view.scale") / before - 1.5) < 1e-6)
    page.press("0")
    check(f"{name}: 0 fits again", fills())
    page.no_errors()


def run(driver, small, large, shots):
    def shot(name):
        if shots:
            shots.mkdir(parents=True, exist_ok=True)
            driver.save_screenshot(str(shots / name))

    page = Page(driver, small)
    page.no_errors()
    check("three schedules under one axis", page.js("DATA.length") == 3)
    check("all cells are drawn", page.drawn() == page.js("DATA.reduce((n, s) => n + s.rows.reduce((m, r) => m + r.names.length, 0), 0)"))
    legend = driver.find_element(By.ID, "legend").text
    for words in ("forward", "backward", "for inputs", "for weights", "overlapped pair", "idle", "replica 1", "micro-batch"):
        check(f"the legend has {words}: {legend}", words in legend)
    check("the notes say what the costs are of", "a rank's share" in driver.find_element(By.ID, "notes").text)
    check("title", "dualpipe, 8 ranks, 20 micro-batches: makespan" in page.js("DATA[0].title"))

    tip = page.hover(0, 0, 17)
    check(f"hover names the ops: {tip}", tip.startswith("(0F7;7B13): forward of micro-batch 7 through stage 0, overlapped with"))
    check(f"hover gives the time: {tip}", "rank 0, from 18.75 to 21.75" in tip)
    waited = page.js("DATA[0].gaps.findIndex(g => g[0] === 0)")
    rank, cell = page.js(f"DATA[0].gaps[{waited}].slice(0, 2)")
    tip = page.hover(0, rank, cell)
    check(f"hover says what it waited for: {tip}", "waited " in tip and " for " + page.js(f"DATA[0].gaps[{waited}][4]") in tip)
    shot("hover.png")

    text = page.click(0, 3, 0)
    check(f"a click chooses: {text}", text.startswith("3F0: ") and "needs 2F0 (rank 2)" in text and "is needed by 4F0 (rank 4)" in text)
    shot("chosen.png")
    page.press(Keys.ARROW_RIGHT)
    check("right goes to the next cell", page.chosen().startswith("4F10: "))
    page.press(Keys.ARROW_DOWN)
    check("down goes to the next rank", "rank 4" in page.chosen())
    page.press(Keys.ESCAPE)
    check("escape chooses nothing", page.chosen() == "Nothing chosen.")

    fitted = page.js("view.scale")
    page.press("+", "+", "+")
    check("plus zooms in", page.js("view.scale") > 3 * fitted)
    check("less is drawn when zoomed in", page.drawn() < 500)
    start = page.js("view.from")
    page.mouse(0, 2, page.js("firstAfter(DATA[0].rows[2].t, view.from + 5)")).click_and_hold().move_by_offset(-120, 0).release().perform()
    page.settle()
    check("dragging moves", page.js("view.from") > start)
    page.press("0")
    check("0 fits all", abs(page.js("view.scale") - fitted) < 1e-9 and page.js("view.from") == 0)

    height = page.js("contentHeight()")
    page.press("m")
    check("m shows memory", page.js("contentHeight()") > height and page.js("memoryOf(DATA[0], 0).peak") == 9)
    page.press("c")
    check("c shows the critical path", page.driver.find_element(By.ID, "path").get_attribute("aria-pressed") == "true")
    shot("memory_and_path.png")
    page.press("m")
    before = page.js("style.bg")
    page.press("t")
    check("t changes the theme", page.js("style.bg") != before)
    shot("dark.png")
    page.press("?")
    check("? lists the keys", driver.find_element(By.ID, "help").is_displayed())
    for column in ("dt", "dd"):
        lefts = {cell.rect["x"] for cell in driver.find_elements(By.CSS_SELECTOR, f"#help {column}")}
        check(f"the columns of the list line up: {lefts}", len(lefts) == 1)
    shot("keys.png")
    page.no_errors()

    page = Page(driver, large)
    page.no_errors()
    check("64 x 1024 draws what is visible alone", 0 < page.drawn() < 120000)
    page.press(*["+"] * 12)
    check("64 x 1024, zoomed in, draws cells", 0 < page.drawn() < 5000)
    shot("large.png")
    row = page.js("Math.ceil(view.y / rowHeight()) + 1")
    cell = page.js(f"firstAfter(DATA[0].rows[{row}].t, view.from + 10 / view.scale) + 1")
    check("64 x 1024: hover works", page.hover(0, row, cell) != "")
    check("64 x 1024: a click chooses", "needs " in page.click(0, row, cell))
    page.press("0", "m", "c")
    shot("large_memory.png")
    page.no_errors()


main()
