#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The HTML page in a real browser, opened from disk: overview, front, schedules, keyboard, address, pictures, themes and
their contrast, units of time, large schedules.

page.py TOOL [FOLDER]   TOOL is the pipesched program; screenshots are kept in FOLDER if one is given
"""
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

UNITS = ("1e-290", "1e-6", "1", "1e9", "1e300", "0")


def check(what, condition):
    if not condition:
        sys.exit(f"FAILED: {what}")


def browser(downloads):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-ipc-flooding-protection"):  # thousands of addresses
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options)
    driver.set_script_timeout(600)  # seconds: a busy machine takes its time for thousands of addresses
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return driver


def require_silence(driver):
    errors = [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    check(f"the console is silent: {errors}", not errors)


class Page:
    def __init__(self, driver, path, address="", size=(1500, 1000), scheme="light", shots=None):
        self.driver, self.shots = driver, shots
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.resize(*size)
        driver.get("about:blank")  # or another address of the same page would not load it again
        driver.get(path.as_uri() + address)
        self.canvas = driver.find_element(By.ID, "canvas")
        self.settle()
        self.no_errors()

    def resize(self, width, height):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.settle()

    def settle(self):  # two frames: one may be in the making
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def js(self, expression):
        return self.driver.execute_script("return " + expression)

    def drawn(self):
        return int(self.canvas.get_attribute("data-drawn"))

    def cells(self):
        return self.js("shownPanels().reduce((n, s) => n + s.rows.reduce((m, r) => m + r.n, 0), 0)")

    def mouse(self, n, rank, cell):  # relative to the centre of the canvas, as the mouse wants it
        x, y = self.js(f"(b => [(b.x0 + b.x1) / 2 - size.w / 2, b.y + H.row / 2 - size.h / 2])(cellBox({n}, [{rank}, {cell}]))")
        return ActionChains(self.driver).move_to_element_with_offset(self.canvas, int(x), int(y))

    def hover(self, n, rank, cell):
        self.mouse(n, rank, cell).perform()
        self.settle()
        tip = self.driver.find_element(By.ID, "tip")
        return tip.text if tip.is_displayed() else ""

    def click(self, n, rank, cell):
        self.mouse(n, rank, cell).click().perform()
        self.settle()
        return self.chosen()

    def chosen(self):
        return self.driver.find_element(By.ID, "chosen").text

    def marks(self):
        return self.driver.find_elements(By.CSS_SELECTOR, "#chart .mark")

    def labels(self):
        return [m.get_attribute("aria-label") for m in self.marks()]

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()
        self.settle()

    def address(self):
        time.sleep(0.3)  # the page writes it when the view rests
        return self.js("location.hash")

    def no_errors(self):
        require_silence(self.driver)

    def shot(self, name):
        if self.shots:
            self.shots.mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(self.shots / name))


def times(unit):
    return ["--forward", unit, "--backward-input", unit, "--backward-weight", unit]


def write_pages(tool, folder):
    """The pages that are looked at, by name."""
    model = pathlib.Path(folder, "model.json")
    model.write_text('{"time_unit": "ms", "layers": [{"count": 8, "backward": 2, "kept": 5e9, "weights": 5e9}]}')
    dualpipe = ["simulate", "--family", "dualpipe", "--pp", "4", "--micro", "8"]
    commands = {
        "compare": ["compare", "--pp", "8", "--micro", "20", "--costs", "deepseek_v3"],
        "three": ["compare", "--pp", "8", "--micro", "20", "--transfer", "0.25", "--families", "dualpipe,zb1p,1f1b"],
        "front": ["plan", "--placement", "bidirectional", "--pp", "4", "--micro", "8", "--costs", "deepseek_v3", "--pareto",
                  "--evaluations", "3000"],
        "plan": ["plan", "--family", "dualpipe", "--pp", "4", "--micro", "8", "--evaluations", "500"],
        "memory": ["plan", "--model", model, "--family", "1f1b", "--pp", "4", "--micro", "8", "--memory", "80GB", "--evaluations", "200"],
        "large": ["simulate", "--family", "dualpipev", "--pp", "64", "--micro", "1024"],
        "many": ["compare", "--pp", "64", "--micro", "512", "--transfer", "0.3"],
        "deepseek_v3": [*dualpipe, "--costs", "deepseek_v3"],
        **{unit: [*dualpipe, *times(unit)] for unit in UNITS}}
    pages = {}
    for name, command in commands.items():
        pages[name] = pathlib.Path(folder, f"{name}.html")
        subprocess.run([tool, *command, "--format", "html", "--output", pages[name]], check=True)
    return pages


def main():
    tool = sys.argv[1]
    shots = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        pages = write_pages(tool, folder)
        downloads = pathlib.Path(folder, "downloads")
        downloads.mkdir()
        driver = browser(downloads)
        try:
            overview(driver, pages["compare"], shots)
            front(driver, pages["front"], shots)
            planned(driver, pages["plan"], pages["memory"], shots)
            schedules(driver, pages["three"], shots)
            same_rows(driver, pages["three"], tool)
            addresses(driver, pages["three"])
            any_addresses(driver, pages["three"])
            framed(driver, pages["three"])
            pictures(driver, pages, downloads)
            for page in (pages["compare"], pages["front"], pages["three"]):
                contrast(driver, page)
            large(driver, pages["large"], pages["many"], shots)
            for name in ("deepseek_v3", *UNITS):
                fitted(driver, name, pages[name], shots)
        finally:
            driver.quit()
    print("opened from disk, read, chosen, zoomed, addressed, pictured, themed: all as expected")


PAINTED = "(paintSchedules(globalThis.pen = new SvgPen()), globalThis.pen.out.join(''))"


def overview(driver, path, shots):
    page = Page(driver, path, size=(1200, 675), shots=shots)
    check("it opens with the overview", page.js("document.body.dataset.view") == "overview" and not page.canvas.is_displayed())
    headline = driver.find_element(By.TAG_NAME, "h1").text
    check(f"the headline: {headline}",
          headline == "DeepSeek-V3, 8 ranks, 20 micro-batches: dualpipe 4.09 s, dualpipev 4.13 s, 1f1b 6.28 s" == driver.title)
    check("a number and its unit stay together", all(not text.startswith(("s", "ms")) for text in page.js("[...headline.children].map(s => s.textContent)")))
    facts = driver.find_element(By.ID, "facts").text
    check(f"the line below it says the costs, and what they are of: {facts}",
          facts.startswith("F 97.39 ms, I 111.6 ms, W 23.71 ms, F with B or I 129 ms; costs are of a rank's share"))
    labels = page.labels()
    check(f"one row a schedule, equal ones folded: {len(labels)} of {page.js('DATA.length')}", len(labels) == 18)
    check(f"a row says all its numbers: {labels[0]}",
          labels[0] == "dualpipe: makespan 4.088 s, idle 12.2 %, at least 3.913 s for any order of such cells, peak 9 activations, "
          "2 copies of the weights")
    check("folded rows name all", any(label.startswith("zb1p = zb_greedy = zb_greedy_1p = zb_h1: ") for label in labels))
    options = page.js("[...$('shown').options].map(o => o.text)")
    check(f"the list says in the same words which are equal: {options}", "zb_h1 = zb1p" in options and "zb1p" in options and "1f1b" in options)
    check("with little room a row says how many", page.js("nameOf(groups.find(g => g.length === 4), 16, 170)") == "zb1p = 3 others")
    check("and with less a number", page.js("nameOf(groups.find(g => g.length === 4), 16, 100)") == "zb1p = +3")
    bars = page.js("[...document.querySelectorAll('#chart .mark')].map(m => [...m.querySelectorAll('rect')].slice(1, 3).map(r => +r.getAttribute('width')))")
    first = page.js("DATA[0]")
    check("bars are as long as the makespans", abs(bars[-1][0] / bars[0][0] - page.js("DATA[DATA.length - 1].makespan") / first["makespan"]) < 1e-2)
    times = page.js("[...document.querySelectorAll('#chart .mark')].map(m => [...m.querySelectorAll('text')].find(t => / s$/.test(t.textContent)).textContent)")
    check(f"times of bars have the same decimals: {times}", all(len(t.split(".")[1]) == 5 for t in times))
    check("also where they are whole", page.js("[6, 6.5, 12].map(column([6, 6.5, 12])).join()") == "6.0 ms,6.5 ms,12.0 ms")
    check("their coloured part is busy", abs(bars[0][1] / bars[0][0] - (1 - first["idle"])) < 1e-3)
    for width, height in ((1500, 1000), (1200, 675), (800, 600)):
        page.resize(width, height)
        check(f"{width} x {height} shows all of it", page.js("chart.scrollHeight <= chart.clientHeight && chart.scrollWidth <= chart.clientWidth"))
        check(f"{width} x {height}: no text leaves the picture", page.js(
            "[...document.querySelectorAll('#chart text')].every(t => { const b = t.getBoundingClientRect(), c = chart.getBoundingClientRect(); return b.left >= c.left && b.right <= c.right + 1; })"))
        page.shot(f"overview_{width}.png")
    sizes = page.js("(box => (box.innerHTML = overview(1200, 675, true).svg, [...box.querySelectorAll('.mark')].map(m => [m.getAttribute('aria-label').split(/[,:]/)[0], +m.querySelector('text').getAttribute('font-size')])))(document.createElement('div'))")
    large = {name: size for name, size in sizes if size > 20}
    check(f"in a thumbnail 300 pixels wide, rows of the headline can be read: {large}", set(large) == {"dualpipe", "dualpipev", "1f1b"} and min(large.values()) >= 30)
    check(f"in one 600 pixels wide, all rows: {sizes}", min(size for _, size in sizes) >= 18)
    for count in (2, 3, 4, 8):
        share = page.js(f"(g => {{ const rest = groups.splice({count}); const box = document.createElement('div'); box.innerHTML = overview(1200, 560, false).svg; groups.push(...rest); return Math.max(...[...box.querySelectorAll('.hit')].map(r => +r.getAttribute('y') + +r.getAttribute('height'))) / 560; }})()")
        check(f"{count} rows fill the window: {share}", share > (0.8 if count > 2 else 0.7))
    page.resize(400, 800)
    check("a narrow window keeps its bars", page.js("+document.querySelectorAll('#chart .mark')[0].querySelectorAll('rect')[1].getAttribute('width') > 40"))
    check("and whole names", "interleaved_1f1b" in page.js("chart.textContent"))
    page.shot("overview_400.png")
    page.resize(1200, 675)
    check("a bar far longer than the others is cut", page.js("endOfScale([1, 1.1, 1.2, 9])") == 1.2 and page.js("endOfScale([3])") == 3)
    check("one that is a little longer is not", page.js("endOfScale([2, 2, 3.5, 4.5])") == 4.5)
    check("numbers are short", page.js("[19500000016, 12345678, 0.5, 2.55e-5, 1e-4, 99999999, -3.25, 0].map(n => format(n, 4)).join()") == "1.95e+10,12350000,0.5,2.55e-5,0.0001,1e+8,-3.25,0")
    check("numbers that lie halfway are rounded as in the headline", page.js("[[2.5, 1], [0.125, 2], [-0.375, 2], [1.45, 2], [9.5, 1], [1000.5, 4], [2500000, 1], [8.5e20, 1], [5e-324, 1]].map(([n, d]) => format(n, d)).concat([0.0625, 0.06, 0.0025].map(percent)).join()") == "3,0.13,-0.38,1.4,10,1001,3000000,9e+20,5e-324,6.3 %,6.0 %,0.3 %")
    check("times have units down to nanoseconds", page.js("PAGE.unit === 'ms' && [0, 2.55e-8, 0.25, 30, 4e3].map(t => time(t)).join()") == "0 s,0.0255 ns,250 \u00b5s,30 ms,4 s")
    check("one activation", page.js("[1, 8.5].map(activations).join()") == "1 activation,8.5 activations")
    page.press(Keys.TAB)
    while page.js("document.activeElement.closest('.mark') === null"):
        page.press(Keys.TAB)
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    check("arrow and Enter open the second schedule", page.address() == "#show=dualpipev" and page.canvas.is_displayed())
    page.press(Keys.ESCAPE)
    check("Escape goes back to its row", page.address() == "#view=overview" and page.js("document.activeElement.dataset.open") == "1")
    page.marks()[4].click()
    page.settle()
    check("a click opens the schedule", page.address() == "#show=interleaved_zb")
    driver.back()
    page.settle()
    check("back is the overview", page.js("place") == "overview")
    [m for m in page.marks() if m.get_attribute("aria-label").startswith("1f1b:")][0].click()
    page.settle()
    texts = page.js(PAINTED)
    check("every number fits into its cell", all(texts.count(f">{m}<") == 16 for m in range(20)))
    check("times have four digits", "1f1b: 6.283 s, " in texts and "; bound 6.283 s<" in texts)
    legend = driver.find_element(By.ID, "legend").text
    check(f"the legend has what is drawn: {legend}", "backward" in legend and "for inputs" not in legend and "pair" not in legend)
    page.shot("1f1b.png")
    page.press(Keys.ESCAPE)
    for button in driver.find_elements(By.CSS_SELECTOR, "button, select, canvas"):
        check("everything has a name for screen readers", button.get_attribute("aria-label") or button.get_attribute("textContent").strip())
    page.no_errors()


def front(driver, path, shots):
    page = Page(driver, path, size=(1200, 675), shots=shots)
    check("a front opens first", page.js("place") == "front")
    points = page.js("PAGE.front")
    labels = page.labels()
    check("a mark per plan and per published schedule", len(labels) == len(points) + sum(p["published"] >= 0 for p in points))
    page.shot("front.png")
    last = points[-1]
    check("the last point has a published schedule", last["published"] >= 0)
    page.driver.execute_script("document.activeElement.blur()")
    [m for m in page.marks() if "planned" in m.get_attribute("aria-label")][-1].click()
    page.settle()
    check("a click shows the plan beside the published schedule", page.js("shown") == [last["plan"], last["published"]])
    title = page.js("DATA[shown[0]].name")
    check(f"its name has its limit: {title}", title.startswith("planned, limit "))
    page.shot("front_opened.png")
    page.press("f")
    check("f goes back to the front", page.address() == "#view=front")
    page.press("o")
    check("o is the overview of its schedules", page.js("place") == "overview" and len(page.labels()) >= 2)
    page.no_errors()


def planned(driver, path, memory, shots):
    page = Page(driver, path, shots=shots)
    check(f"the plan comes first: {driver.title}", driver.title.startswith("4 ranks, 8 micro-batches: planned "))
    check("beside families", page.labels()[0].startswith("planned") and len(page.labels()) > 10)
    page = Page(driver, memory, "#show=planned&memory", shots=shots)
    check("a plan for a model has its limits of memory", page.js("DATA[0].limits !== null && DATA[0].limits.every(l => l > 0)"))
    page.press("o")
    labels = page.labels()
    check(f"beside families: {labels[:2]}", labels[0].startswith("planned: ") and any(label.startswith("1f1b: ") for label in labels))
    page.driver.back()
    page.settle()
    scale = page.js("memoryScale.now")
    check("peaks and limits have one scale", scale == page.js("Math.max(...DATA[0].limits, ...DATA[0].rows.map((_, r) => memoryOf(DATA[0], r).peak))"))
    check("the page writes the limit", "limit " in page.js(PAINTED))
    page.shot("memory.png")


def schedules(driver, path, shots):
    page = Page(driver, path, "#show=dualpipe,zb1p,1f1b", shots=shots)
    check("three schedules under one axis", page.js("shown.length") == 3)
    check("all cells are drawn", page.drawn() == page.cells())
    legend = driver.find_element(By.ID, "legend").text
    for words in ("forward", "backward", "for inputs", "for weights", "overlapped pair", "idle", "replica 1", "micro-batch"):
        check(f"the legend has {words}: {legend}", words in legend)
    check("title", "dualpipe, 8 ranks, 20 micro-batches: makespan" in page.js("DATA[0].title"))

    tip = page.hover(0, 0, 17)
    check(f"hover names the ops: {tip}", tip.startswith("(0F7;7B13): forward of micro-batch 7 through stage 0, overlapped with"))
    check(f"hover gives the time: {tip}", "rank 0, from 18.75 to 21.75" in tip)
    wait = page.js("stallsOf(DATA[0])[0]")
    tip = page.hover(0, wait["r"], wait["i"])
    check(f"hover says what it waited for: {tip}", f"waited {wait['to'] - wait['from']:g} for {wait['op']} from rank {wait['rank']}" in tip)
    check("the longest stalls are labelled", page.js("(paintSchedules(globalThis.pen = new SvgPen()), globalThis.pen.out.filter(t => />(waits|for) /.test(t)).length)") >= 3)
    page.shot("hover.png")

    text = page.click(0, 3, 0)
    check(f"a click chooses: {text}", text.startswith("dualpipe, 3F0: ") and "needs 2F0 (rank 2)" in text and "is needed by 4F0 (rank 4)" in text)
    page.shot("chosen.png")
    page.press(Keys.ARROW_RIGHT)
    check("right goes to the next cell", page.chosen().startswith("dualpipe, 4F10: "))
    page.press(Keys.ARROW_DOWN)
    check("down goes to the next rank", "rank 4" in page.chosen())
    page.press(Keys.ESCAPE)
    check("escape chooses nothing", page.chosen() == "Nothing chosen.")
    page.press("s")
    check("s goes to the longest stall", f"waited {wait['to'] - wait['from']:g} for {wait['op']}" in page.chosen())
    page.press(Keys.ESCAPE)

    fits = page.js("view.scale")
    page.press("+", "+", "+", "+", "+")
    check("plus zooms in", page.js("view.scale") > 7 * fits)
    check("less is drawn when zoomed in", page.drawn() < 500)
    start = page.js("view.from")
    ActionChains(driver).move_to_element(page.canvas).click_and_hold().move_by_offset(-120, 0).release().perform()
    page.settle()
    check("dragging moves", page.js("view.from") > start)
    page.resize(1500, 500)
    page.js("move(0, 1e9)")
    page.settle()
    check("the axis stays when rows move", page.js("view.y") > 0 and page.js("[...g.getImageData(left, 4, size.w - left, 16).data].some((v, k) => k % 4 === 0 && v < 120)"))
    page.resize(1500, 1000)
    page.press("0")
    check("0 fits all", abs(page.js("view.scale") - fits) < 1e-9 and page.js("view.from") == 0)
    check("a fitted view shows all rows", page.js("contentHeight() <= size.h"))

    page.press("m")
    check("m shows memory", page.js("H.memory") > 0 and page.js("memoryOf(DATA[0], 0).peak") == 9)
    page.press("c")
    check("c shows the critical path", driver.find_element(By.ID, "path").get_attribute("aria-pressed") == "true")
    page.shot("memory_and_path.png")
    page.press("m")
    before = page.js("style.bg")
    page.press("t")
    check("t changes the theme", page.js("style.bg") != before)
    page.shot("dark.png")
    page.press("?")
    check("? lists the keys", driver.find_element(By.ID, "help").is_displayed())
    for column in ("dt", "dd"):
        lefts = {cell.rect["x"] for cell in driver.find_elements(By.CSS_SELECTOR, f"#help {column}")}
        check(f"the columns of the list line up: {lefts}", len(lefts) == 1)
    page.shot("keys.png")
    page.press(Keys.ESCAPE, "]")
    check("] opens the next schedule", page.js("shown") == [1])
    driver.execute_script("document.getElementById('beside').value = '2'; document.getElementById('beside').dispatchEvent(new Event('change'))")
    page.settle()
    check("another schedule beside it", page.js("shown") == [1, 2])
    page.no_errors()


def same_rows(driver, path, tool):
    """The rows on the page are those of the tool."""
    page = Page(driver, path, "#show=dualpipe,zb1p,1f1b")
    for n, name in enumerate(page.js("DATA.map(s => s.name)")):
        text = subprocess.run([tool, "generate", name, "--pp", "8", "--micro", "20", "--format", "text"], check=True,
                              capture_output=True, text=True).stdout
        rows = [line.split(": ", 1)[1].split() for line in text.splitlines() if line.startswith("rank ")]
        read = page.js(f"DATA[{n}].rows.map((row, r) => [...row.words].map((_, i) => cellText(DATA[{n}], r, i)))")
        check(f"{name}: the rows are the tool's", rows == read and len(rows) == 8)


def addresses(driver, path):
    """The address keeps the view: opened anew, it shows the same."""
    state = "JSON.stringify([place, shown, chosen, showPath, showMemory, view.from.toPrecision(6), view.scale.toPrecision(6), style.bg])"
    page = Page(driver, path, "#show=zb1p,1f1b")
    page.press("+", "+", "c", "m", "t")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    kept, address = page.js(state), page.address()
    check(f"the address says it: {address}", all(part in address for part in ("show=zb1p,1f1b", "from=", "to=", "cell=zb1p:", "path", "memory", "theme=dark")))
    page = Page(driver, path, address)
    check(f"opened anew: {kept} is {page.js(state)}", page.js(state) == kept)
    for wrong in ("#show=nothing", "#show=%", "#show=1f1b&theme=%zz", "#show=1f1b&from=x&to=y&cell=1f1b:99:0", "#view=front", "#%", "#cell", "#show=1f1b&from=5&to=5"):
        page = Page(driver, path, wrong)
        check(f"{wrong}: the page opens", page.js("place") in ("overview", "schedule"))


NUMBERS = ("", "-1", "1.5", "NaN", "1e99", "-1e999", "Infinity", "x", "0", "1", "7", "99", "1e308", "-1e308", "5e-324", "0x1", " ", "%", "null", "1,2", "[]", "1e-7", "40")
NAMES = ("dualpipe", "zb1p", "1f1b", "", "nothing", "__proto__", "%64ualpipe", "%", "<b>", "dualpipe.2")
# Reads each address and draws it; the addresses that raise an error, show nothing, or give the page numbers that are none.
READ = """return arguments[0].filter(a => {
  try {
    history.replaceState(null, "", a); readAddress(); paint(); address();
    if (place === "schedule") cellAt(300, 100);
    if (place === "schedule" && chosen) { describe(chosen); reveal(chosen); step(1, 0); paint(); }
    const drawn = place === "schedule" ? +canvas.dataset.drawn > 0 : chart.querySelectorAll(".mark").length > 0;
    const whole = !chosen || (Number.isInteger(chosen.r) && Number.isInteger(chosen.i) && chosen.i >= 0 && chosen.i < DATA[chosen.n].rows[chosen.r].n);
    return !(drawn && whole && [view.from, view.scale, view.y].every(Number.isFinite) && (place !== "schedule" || view.scale > 0));
  } catch (error) { return true; }
});"""


def any_addresses(driver, path):
    """Whatever the address is, the page shows something."""
    rng = random.Random(5)

    def entry():
        number, name = (lambda: rng.choice(NUMBERS)), (lambda: rng.choice(NAMES))
        return rng.choice((
            lambda: "show=" + ",".join(name() for _ in range(rng.randrange(1, 4))), lambda: "from=" + number(), lambda: "to=" + number(),
            lambda: "down=" + number(), lambda: f"cell={name()}:{number()}:{number()}", lambda: "cell=" + number(), lambda: "view=" + name(),
            lambda: "theme=" + name(), lambda: rng.choice(("path", "memory", "=", "cell", "from", "show", "a=b=c")), lambda: name() + "=" + number()))()

    page = Page(driver, path)
    every_number = [f"#show=1f1b&{field}" for n in NUMBERS for field in (f"cell=1f1b:{n}:0", f"cell=1f1b:0:{n}", f"from={n}&to=9", f"from=2&to={n}", f"from=2&to=9&down={n}")]
    random_ones = ["#" + "&".join(["show=dualpipe,1f1b"] * rng.randrange(2) + [entry() for _ in range(rng.randrange(6))]) for _ in range(1500)]
    wrong = driver.execute_script(READ, every_number + random_ones)
    check(f"any address shows something: {wrong[:5]}", not wrong)
    page.no_errors()
    for address in (*every_number[:10], *random_ones[:10]):
        page = Page(driver, path, address)  # which looks at the console
        check(f"{address}: the page opens", page.js("place") in ("overview", "schedule"))


def framed(driver, path):
    """In the frame of another page, such as a notebook, there is no address to write, and a click opens a schedule."""
    inside = path.read_text().replace("&", "&amp;").replace('"', "&quot;")
    outside = path.with_name("outside.html")
    outside.write_text(f'<!doctype html><iframe srcdoc="{inside}" style="width:100%;height:500px"></iframe>')
    driver.get(outside.as_uri())
    driver.switch_to.frame(0)
    driver.find_element(By.CSS_SELECTOR, "#chart .mark").click()
    time.sleep(0.3)  # the page would write the address then
    check("in a frame a click opens a schedule", driver.execute_script("return document.body.dataset.view") == "schedule")
    driver.switch_to.default_content()
    require_silence(driver)


def pictures(driver, pages, downloads):
    """A button saves the view as SVG that stands alone, or PNG."""
    for name, address, saved in (("compare", "", "overview"), ("front", "", "front"), ("three", "#show=dualpipe,1f1b&path&memory", "dualpipe_and_1f1b")):
        page = Page(driver, pages[name], address, scheme="dark" if name == "front" else "light")
        for suffix in ("svg", "png"):
            driver.find_element(By.ID, suffix).click()
            file = downloads / f"{saved}.{suffix}"
            for _ in range(100):
                if file.exists() and file.stat().st_size > 0:
                    break
                time.sleep(0.1)
            check(f"{file.name} is saved", file.exists())
            data = file.read_bytes()
            if suffix == "png":
                size = struct.unpack(">II", data[16:24])
                check(f"{file.name} is a picture: {size}", data[:8] == b"\x89PNG\r\n\x1a\n" and (size == (2400, 1350) or name == "three"))
                continue
            root = xml.etree.ElementTree.fromstring(data)
            text = data.decode()
            check(f"{file.name} stands alone", "var(" not in text and text.count("http") == 1 and "undefined" not in text and "NaN" not in text)
            check(f"{file.name} says the costs", (">F 1, I 1, W 1, a message 0.25; " if name == "three" else ">F 97.39 ms, I 111.6 ms, ") in text)
            check(f"{file.name} says where it comes from", ">made with pipesched<" in text)
            texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
            starts = [i for i, t in enumerate(texts) if (t.text or "").startswith(("DeepSeek-V3", "dualpipe and 1f1b, 8 ranks"))]
            check(f"{file.name} has a headline", starts)
            if name != "three":
                size, second = float(texts[starts[0]].get("font-size")), texts[starts[0] + 1].text
                check(f"it can be read in a thumbnail 300 pixels wide: {size}", size >= 30)
                check(f"its lines do not begin with a unit: {second}", not second.startswith(("s ", "s,", "ms")))
        page.no_errors()


LUMINANCE = """(name => { const c = style[name].slice(1).match(/../g).map(h => parseInt(h, 16) / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; })"""


def contrast(driver, path):
    """WCAG AA: texts have a contrast of 4.5, parts of pictures of 3; passes differ in grey."""
    for scheme in ("light", "dark"):
        page = Page(driver, path, scheme=scheme)
        light = {name: page.js(f"{LUMINANCE}('{name}')") for name in
                 ("bg", "fg", "dim", "pick", "path", "busy", "idle", "plan", "band", "F", "B", "I", "W", "R", "Ft", "Bt", "It", "Wt", "Rt")}

        def ratio(a, b):
            return (max(light[a], light[b]) + 0.05) / (min(light[a], light[b]) + 0.05)

        for text, ground in (("fg", "bg"), ("dim", "bg"), ("pick", "bg"), ("Ft", "F"), ("Bt", "B"), ("It", "I"), ("Wt", "W"), ("Rt", "R")):
            check(f"{scheme}: {text} on {ground} is {ratio(text, ground):.2f}", ratio(text, ground) >= 4.5)
        for part, ground in (("busy", "bg"), ("plan", "bg"), ("busy", "idle"), ("plan", "idle"), ("path", "bg"), ("fg", "idle"), ("busy", "band")):
            check(f"{scheme}: {part} beside {ground} is {ratio(part, ground):.2f}", ratio(part, ground) >= 3)
        check(f"{scheme}: idle is visible: {ratio('idle', 'bg'):.2f}", ratio("idle", "bg") >= 1.3)
        passes = sorted(light[p] for p in "FBIWR")
        check(f"{scheme}: passes differ in grey: {passes}", all(b - a > 0.05 for a, b in zip(passes, passes[1:])))


def large(driver, path, many, shots):
    check(f"21 families at 64 x 512 are {many.stat().st_size} bytes", many.stat().st_size < 5e6)
    page = Page(driver, many, size=(1200, 675), shots=shots)
    check("all 21 are there", page.js("DATA.length") == 21)
    page.marks()[0].click()
    page.settle()
    check("one of them opens", page.drawn() == page.cells() > 50000)
    page.shot("many.png")
    page = Page(driver, path, shots=shots)
    check("64 x 1024 draws all of it", page.drawn() == page.cells() > 120000)
    ms = page.js("(t => { paint(); return performance.now() - t; })(performance.now())")
    check(f"64 x 1024 takes {ms:.0f} ms to draw", ms < 5000)
    page.press(*["+"] * 12)
    check("64 x 1024, zoomed in, draws cells", 0 < page.drawn() < 5000)
    page.shot("large.png")
    row = page.js("Math.max(0, Math.ceil((AXIS - rowTop(0, 0)) / pitch())) + 1")
    cell = page.js(f"firstAfter(DATA[0].rows[{row}], view.from + 10 / view.scale) + 1")
    check("64 x 1024: hover works", page.hover(0, row, cell) != "")
    check("64 x 1024: a click chooses", "needs " in page.click(0, row, cell))
    page.press("0", "m", "c")
    page.shot("large_memory.png")
    page.no_errors()


def fitted(driver, name, path, shots):
    """Whatever the unit of time, the page opens fitted, stays so when the window changes, and zooms from there."""
    page = Page(driver, path, size=(1500, 800), shots=shots)
    check("the page says what the costs are of", "costs are per stage" in driver.find_element(By.ID, "facts").text)
    page.shot(f"unit_{name}.png")
    scales = name != "0"  # nothing takes time there

    def fills():
        page.settle()
        right, width = page.js("X(longest())"), page.js("size.w")
        return not scales or page.js("view.from") == 0 and width - 20 <= right <= width

    check(f"{name}: fitted when it opens", fills())
    if scales:
        check(f"{name}: all cells are drawn", page.drawn() == page.cells())
    for width in (700, 1100):
        page.resize(width, 800)
        check(f"{name}: fitted in a window of {width}", fills())
    before = page.js("view.scale")
    page.press("+")
    check(f"{name}: plus zooms in", not scales or abs(page.js("view.scale") / before - 1.5) < 1e-6)
    page.press("0")
    check(f"{name}: 0 fits again", fills())
    page.no_errors()


main()
