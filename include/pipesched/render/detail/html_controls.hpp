// SPDX-License-Identifier: MIT
#pragma once

// The page's script, fourth part: pointer and keyboard, the view in the address, and pictures of it.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_controls_script = R"html(
const canvas = $("canvas"), g = canvas.getContext("2d"), chart = $("chart");
let place = PAGE.front.length ? "front" : DATA.length > 1 ? "overview" : "schedule", home = place;

let style = {};
function readStyle() {
  const css = getComputedStyle(document.documentElement);
  for (const name of ["bg", "fg", "dim", "line", "hatch", "frame", "pick", "path", "mem", "busy", "idle", "plan", "band", "rest", "F", "B", "I", "W", "R", "Ft", "Bt", "It", "Wt", "Rt"]) style[name] = css.getPropertyValue("--" + name).trim();
  const tile = document.createElement("canvas"), c = tile.getContext("2d");
  tile.width = tile.height = 6; c.fillStyle = style.rest; c.fillRect(0, 0, 6, 6); c.strokeStyle = style.hatch; c.beginPath(); c.moveTo(0, 6); c.lineTo(6, 0); c.stroke();
  style.idlePattern = g.createPattern(tile, "repeat");
}

let asked = false;
function draw() { if (!asked) { asked = true; requestAnimationFrame(paint); } }
function paint() {
  asked = false;
  if (place !== "schedule") return paintChart();
  size = {w: $("stage").clientWidth, h: $("stage").clientHeight};
  shownPanels().forEach(rowsOf);
  clamp();
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(size.w * ratio) || canvas.height !== Math.round(size.h * ratio)) { canvas.width = Math.round(size.w * ratio); canvas.height = Math.round(size.h * ratio); }
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (showMemory) memoryScale.now = memoryScale();
  canvas.dataset.drawn = paintSchedules(new CanvasPen(g));
}
function paintChart() {
  const at = [...chart.querySelectorAll(".mark")].indexOf(document.activeElement);
  chart.innerHTML = (place === "front" ? front : overview)(chart.clientWidth, chart.clientHeight, false).svg;
  const marks = [...chart.querySelectorAll(".mark")];
  if (marks.length) (marks[at] || marks[0]).tabIndex = 0;
  if (at >= 0 && marks[at]) marks[at].focus();
}

// The view in the address: what is shown, the stretch of time, the cell chosen, what is drawn with it.
function address() {
  const parts = [place === "schedule" ? "show=" + shown.map(n => DATA[n].id).join(",") : "view=" + place];
  if (place === "schedule") {
    if (!fitted) parts.push("from=" + format(view.from), "to=" + format(view.from + (size.w - left - 16) / view.scale));
    if (!fitted && view.y > 0) parts.push("down=" + format(view.y / pitch(), 4));
    if (chosen) parts.push("cell=" + DATA[chosen.n].id + ":" + chosen.r + ":" + chosen.i);
    if (showPath) parts.push("path");
    if (showMemory) parts.push("memory");
  }
  if (document.documentElement.dataset.asked) parts.push("theme=" + document.documentElement.dataset.theme);
  return "#" + parts.join("&");
}
let waiting = 0;
function remember(now) {
  if (location.protocol === "about:") return;  // a page in the frame of another one has no address
  clearTimeout(waiting);
  const write = () => { if (location.hash !== address()) history[now ? "pushState" : "replaceState"](null, "", address()); };
  if (now) write(); else waiting = setTimeout(write, 200);
}
function decoded(text) { try { return decodeURIComponent(text); } catch { return ""; } }  // a "%" that starts no byte
function readAddress() {
  const given = new Map(location.hash.slice(1).split("&").filter(Boolean).map(part => part.split("=")).map(([k, v]) => [k, decoded(v || "")]));
  const indexOf = id => DATA.findIndex(s => s.id === id);
  if (["light", "dark"].includes(given.get("theme"))) theme(given.get("theme"), true);
  const ids = (given.get("show") || "").split(",").map(indexOf).filter((n, k, all) => n >= 0 && all.indexOf(n) === k);
  place = ids.length ? "schedule" : given.get("view") === "front" && PAGE.front.length ? "front" : given.get("view") === "overview" ? "overview" : home;
  shown = ids.length ? ids : [0];
  showPath = given.has("path"); showMemory = given.has("memory"); chosen = null; fitted = true; view = {from: 0, scale: 0, y: 0};
  enter();
  if (place !== "schedule") return;
  size = {w: $("stage").clientWidth, h: $("stage").clientHeight};
  shownPanels().forEach(rowsOf);
  // A number from 0 to `most`, else NaN, which compares with nothing.
  const number = (text, most) => { const n = (text || "").trim() ? Number(text) : NaN; return n >= 0 && n <= most ? n : NaN; };
  const from = number(given.get("from"), longest()), to = number(given.get("to"), Number.MAX_VALUE);
  if (to > from) { fitted = false; view.from = from; view.scale = (size.w - left - 16) / (to - from); clamp(); view.y = (number(given.get("down"), 1e6) || 0) * pitch(); }
  const [id, rank, index] = (given.get("cell") || "").split(":"), n = indexOf(id);
  if (!shown.includes(n)) return;
  const r = number(rank, DATA[n].rows.length - 1), i = number(index, Number.isInteger(r) ? DATA[n].rows[r].n - 1 : -1);
  if (Number.isInteger(r) && Number.isInteger(i)) choose({n, r, i});
}

// Makes the elements agree with what is shown.
function enter() {
  document.body.dataset.view = place;
  for (const id of ["front", "overview"]) { if (place === id) $(id).setAttribute("aria-current", "page"); else $(id).removeAttribute("aria-current"); }
  $("shown").value = shown[0]; $("beside").value = shown.length > 2 ? "all" : shown.length > 1 ? shown[1] : "";
  $("path").setAttribute("aria-pressed", showPath); $("memory").setAttribute("aria-pressed", showMemory); $("tip").style.display = "none";
  if (place === "schedule") legend();
  if (!chosen) $("chosen").textContent = "Point at a cell, or click one to see what it needs and what needs it.";
  draw();
}
function open(list) { place = "schedule"; shown = list; chosen = null; fitted = true; view = {from: 0, scale: 0, y: 0}; enter(); remember(true); canvas.focus({preventScroll: true}); }
function go(to) {
  if (to === "schedule" || (to === "front" && !PAGE.front.length)) return;
  const was = shown[0];
  place = to; chosen = null; enter(); remember(true); paintChart();
  const marks = [...chart.querySelectorAll(".mark")], at = marks.find(m => m.dataset.open.split(",")[0] === String(was)) || marks[0];
  if (at) { marks.forEach(m => { m.tabIndex = m === at ? 0 : -1; }); at.focus({preventScroll: true}); }
}
const uses = (s, p) => s.words.some(w => LETTER[w[3]] === p || LETTER[w[6]] === p || (p === "R" && (w[3] > 5 || w[6] > 5)));
function legend() {
  const list = shownPanels(), two = list.some(s => s.hosted.length > 1), more = list.some(s => s.hosted.some(h => h.some(n => n > 1))), has = (s, f) => s.words.some(f);
  $("later").textContent = [more && "a later stage of the rank", two && "replica 1"].filter(Boolean).join(", or ");
  $("bar").style.display = two || more ? "" : "none"; $("unit").style.display = more ? "" : "none";
  for (const p of PASSES) $("key" + p).style.display = list.some(s => uses(s, p)) ? "" : "none";
  $("pairs").style.display = list.some(s => has(s, w => w.length > 6)) ? "" : "none";
}

// Pictures: SVG, or its pixels twice as dense. Very many cells are pixels in either.
function picture() {
  const w = 1200, h = 675;
  if (place !== "schedule") return (place === "front" ? front : overview)(w, h, true).svg;
  const head = 84, foot = 6, row = 62, pen = new SvgPen();
  paintSchedules(pen);
  let inside = pen.out.join("");
  if (pen.out.length > 30000) inside = `<image width="${size.w}" height="${size.h}" href="${canvas.toDataURL("image/png")}"/>`;
  const all = Math.ceil(Math.min(size.h, contentHeight() - view.y)) + head + foot, pattern = `<defs><pattern id="idle" width="6" height="6" patternUnits="userSpaceOnUse">${box(0, 0, 6, 6, style.rest)}${line("M0 6L6 0", style.hatch)}</pattern></defs>`;
  const title = (PAGE.subject ? PAGE.subject + ", " : "") + shown.map(n => DATA[n].name).join(" and ") + PAGE.sizes;
  let x = 20, keys = "";
  for (const [p, text] of [["F", "forward"], ["B", "backward"], ["I", "backward for inputs"], ["W", "for weights"], ["R", "recompute"]]) {
    if (!shownPanels().some(s => uses(s, p))) continue;
    keys += box(x, row, 15, 11, style[p], ` stroke="${style.frame}" stroke-width="0.5"`) + words(x + 20, row + 10, text, style.fg); x += 38 + widthOf(text, 12);
  }
  const pair = shownPanels().some(s => s.words.some(v => v.length > 6)), bar = $("bar").style.display === "none" ? "" : $("later").textContent;
  if (pair) { keys += box(x + 1, row + 1, 6, 9, style.F) + box(x + 7, row + 1, 8, 9, style.B) + box(x + 1, row + 1, 14, 9, "none", ` stroke="${style.frame}" stroke-width="2"`) + words(x + 20, row + 10, "overlapped pair", style.fg); x += 38 + widthOf("overlapped pair", 12); }
  if (bar) { keys += box(x, row + 8, 15, 2, style.frame) + words(x + 20, row + 10, bar, style.fg); x += 38 + widthOf(bar, 12); }
  keys += box(x, row, 15, 11, "url(#idle)", ` stroke="${style.hatch}" stroke-width="0.5"`) + words(x + 20, row + 10, "idle", style.fg) + words(size.w - 20, row + 10, "made with pipesched", style.dim, 12, "end");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${size.w}" height="${all}" viewBox="0 0 ${size.w} ${all}" font-family="${FONT}" role="img"><title>${escaped(title)}</title>${pattern}` +
    box(0, 0, size.w, all, style.bg) + words(20, 28, shortened(title, 20, size.w - 40), style.fg, 20, "start", BOLD) + words(20, 48, shortened($("facts").textContent, 13, size.w - 40), style.dim, 13) + keys + `<g transform="translate(0 ${head})">${inside}</g></svg>\n`;
}
function save(blob, suffix) {
  const a = document.createElement("a"), url = URL.createObjectURL(blob);
  a.href = url; a.download = (place === "schedule" ? shown.map(n => DATA[n].id).slice(0, 2).join("_and_") : place) + suffix; a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
const saveSvg = () => save(new Blob([picture()], {type: "image/svg+xml"}), ".svg");
function savePng() {
  const image = new Image(), text = picture();
  image.onload = () => {
    const c = document.createElement("canvas"); c.width = 2 * image.width; c.height = 2 * image.height;
    c.getContext("2d").drawImage(image, 0, 0, c.width, c.height); c.toBlob(blob => save(blob, ".png"), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}

const WORDS = {F: "forward", B: "backward", I: "backward for inputs", W: "backward for weights", R: "recomputation"};
function describe({n, r, i}) {
  const s = DATA[n], t = s.rows[r].t, wait = waitOf(s, r, i), T = v => time(v, 7);
  let text = cellText(s, r, i) + ": " + opsOf(s, r, i).map(o => (o[3] ? "recomputation and " : "") + WORDS[o[1]] + " of micro-batch " + o[2] + " through stage " + o[0]).join(", overlapped with ");
  text += "\nrank " + r + ", from " + T(t[2 * i]) + " to " + T(t[2 * i + 1]) + ", lasts " + T(t[2 * i + 1] - t[2 * i]);
  if (wait) text += "\nwaited " + T(wait.to - wait.from) + " for " + wait.op + " from rank " + wait.rank;
  if (s.onPath.has(r + "," + i)) text += "\non the critical path";
  return text;
}
function choose(c) {
  chosen = c;
  if (!c) $("chosen").textContent = "Nothing chosen.";
  else {
    const s = DATA[c.n], {inputs, outputs} = neighbours(s, c.r, c.i), names = list => list.map(([r, i]) => cellText(s, r, i) + " (rank " + r + ")").join(", ") || "nothing";
    $("chosen").textContent = (shown.length > 1 ? s.name + ", " : "") + describe(c).replace(/\n/g, "; ") + "; needs " + names(inputs) + "; is needed by " + names(outputs);
  }
  remember(); draw();
}
function reveal({n, r, i}) {
  const b = cellBox(n, [r, i]), t = DATA[n].rows[r].t;
  if (b.x0 < left || b.x1 > size.w) view.from = (t[2 * i] + t[2 * i + 1]) / 2 - (size.w - left) / 2 / view.scale;
  if (b.y < AXIS) view.y += b.y - AXIS - TITLE; else if (b.y + H.row > size.h) view.y += b.y + H.row - size.h + 8;
}
function cellAt(x, y) {
  if (x < left || y < AXIS) return null;
  for (const n of shown) {
    const r = Math.floor((y - rowTop(n, 0)) / pitch()), row = DATA[n].rows[r];
    if (!row || y - rowTop(n, r) > H.row) continue;
    const at = view.from + (x - left) / view.scale, i = firstAfter(row, at);
    return i < row.n && row.t[2 * i] <= at ? {n, r, i} : null;
  }
  return null;
}
function zoom(factor, atX = left + (size.w - left) / 2, atY = size.h / 2) {
  const t = view.from + (atX - left) / view.scale, part = (atY - AXIS + view.y) / contentHeight();
  fitted = false; view.scale *= factor; clamp(); view.from = t - (atX - left) / view.scale; view.y = part * contentHeight() - atY + AXIS; remember(); draw();
}
function fit() { view = {from: 0, scale: 0, y: 0}; fitted = true; remember(); draw(); }
function move(time, down) { view.from += time; view.y += down; remember(); draw(); }
)html";

}  // namespace pipesched::detail
