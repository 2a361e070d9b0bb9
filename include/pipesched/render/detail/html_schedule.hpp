// SPDX-License-Identifier: MIT
#pragma once

// The page's script, third part: draws schedules, one below the other under one axis, with one of two pens: on a canvas, or
// as SVG. Only what is visible is drawn.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_schedule_script = R"html(
class CanvasPen {
  constructor(g) { this.g = g; g.textBaseline = "middle"; }
  rect(x, y, w, h, fill) { this.g.fillStyle = fill === "idle" ? style.idlePattern : fill; this.g.fillRect(x, y, w, h); }
  frame(x, y, w, h, stroke, width) { this.g.strokeStyle = stroke; this.g.lineWidth = width; this.g.strokeRect(x, y, w, h); }
  line(path, stroke, width, fill) { const p = new Path2D(path), g = this.g; if (fill) { g.fillStyle = fill; g.fill(p); } if (stroke) { g.strokeStyle = stroke; g.lineWidth = width; g.stroke(p); } }
  text(x, y, text, fill, size, align = "left", weight = "normal") { const g = this.g; g.font = weight + " " + size + "px " + FONT; g.fillStyle = fill; g.textAlign = align; g.fillText(text, x, y); }
  clip(x, y, w, h, f) { const g = this.g; g.save(); g.beginPath(); g.rect(x, y, w, h); g.clip(); f(); g.restore(); }
}
class SvgPen {
  constructor() { this.out = []; this.clips = 0; }
  rect(x, y, w, h, fill) { this.out.push(box(x, y, w, h, fill === "idle" ? "url(#idle)" : fill)); }
  frame(x, y, w, h, stroke, width) { this.out.push(box(x, y, w, h, "none", ` stroke="${stroke}" stroke-width="${px(width)}"`)); }
  line(path, stroke, width, fill) { this.out.push(`<path d="${path}" fill="${fill || "none"}"${stroke ? ` stroke="${stroke}" stroke-width="${width}"` : ""}/>`); }
  text(x, y, text, fill, size, align = "left", weight = "normal") { this.out.push(words(x, y + size * 0.36, text, fill, size, {left: "start", center: "middle", right: "end"}[align], weight === "bold" ? BOLD : "")); }
  clip(x, y, w, h, f) { const id = "clip" + this.clips++; this.out.push(`<clipPath id="${id}">${box(x, y, w, h, "none")}</clipPath><g clip-path="url(#${id})">`); f(); this.out.push("</g>"); }
}

const AXIS = 24, TITLE = 24, LEFT = 84, PASSES = ["F", "R", "B", "I", "W"];
let shown = [0], view = {from: 0, scale: 0, y: 0}, fitted = true, chosen = null, showPath = false, showMemory = false, size = {w: 0, h: 0}, left = LEFT;
const shownPanels = () => shown.map(n => DATA[n]);
const longest = () => { const end = Math.max(...shownPanels().map(s => s.makespan)); return end > 0 ? Math.max(end, 1e-299) : 1; };

// Heights: of a row, with its memory below it; of a schedule. A fitted view shows all rows if they have 3 pixels each.
function heights() {
  const rows = shownPanels().reduce((n, s) => n + s.stages.length, 0), room = size.h - AXIS - shown.length * (TITLE + 10) - 4;
  const both = Math.floor(room / rows), each = !showMemory ? both : both >= 28 ? Math.floor(both / 2) : both - 14, fit = Math.min(56, Math.max(3, each)), zoomed = view.scale / ((size.w - left - 16) / longest());
  const row = Math.round(Math.max(showMemory ? 6 : 3, fit, Math.min(22, fit * zoomed)));
  return {row, memory: showMemory ? Math.max(row, 14) : 0};
}
const panelHeight = (s, h) => TITLE + s.stages.length * (h.row + h.memory) + 10;
let H = {row: 22, memory: 0};
const pitch = () => H.row + H.memory;
function panelTop(n) { let y = AXIS - view.y; for (const k of shown) { if (k === n) break; y += panelHeight(DATA[k], H); } return y; }
const contentHeight = () => shownPanels().reduce((sum, s) => sum + panelHeight(s, H), AXIS);
const X = t => left + (t - view.from) * view.scale;
const rowTop = (n, r) => panelTop(n) + TITLE + r * pitch();
// The first cell of a row that ends after a time.
function firstAfter(row, at) { let a = 0, b = row.n; while (a < b) { const c = (a + b) >> 1; if (row.t[2 * c + 1] > at) b = c; else a = c + 1; } return a; }
function cellBox(n, [r, i]) { const t = DATA[n].rows[r].t; return {x0: X(t[2 * i]), x1: X(t[2 * i + 1]), y: rowTop(n, r)}; }

function clamp() {
  const room = Math.max(50, size.w - left - 16), least = room / longest();
  view.scale = fitted ? least : Math.min(Math.max(view.scale, least), least * 1e5);
  fitted = view.scale === least;  // stays so when the window changes
  view.from = Math.min(Math.max(view.from, 0), Math.max(0, longest() - room / view.scale));
  H = heights();
  view.y = Math.min(Math.max(view.y, 0), Math.max(0, contentHeight() - size.h));
}

// Draws the view; returns the number of cells looked at.
function paintSchedules(pen) {
  let drawn = 0;
  pen.rect(0, 0, size.w, size.h, style.bg);
  const marks = ticks(view.from, view.from + (size.w - left - 4) / view.scale, Math.max(2, (size.w - left) / 90));
  pen.clip(0, AXIS, size.w, size.h - AXIS, () => {
    for (const n of shown) {
      const s = DATA[n], top = panelTop(n);
      if (top > size.h || top + panelHeight(s, H) < 0) continue;
      for (const t of marks) pen.line(`M${px(X(t))} ${px(top + TITLE - 3)}V${px(top + TITLE + s.stages.length * pitch())}`, style.line, 1);
      drawn += paintPanel(pen, n, s);
    }
    if (chosen) paintChosen(pen);
  });
  pen.rect(0, 0, size.w, AXIS - 1, style.bg);  // the axis stays at the top
  pen.line(`M0 ${AXIS - 0.5}H${size.w}`, style.line, 1);
  const u = unitFor(longest());
  marks.forEach(t => pen.text(X(t), AXIS / 2, format(t * u.times) + u.name, style.dim, 12, "center"));
  return drawn;
}
function titleOf(s, room) {
  const facts = `${s.name}: ${time(s.makespan)}, idle ${percent(s.idle)}, peak ${s.inBytes ? bytes(s.bytes) : activations(s.peak)}, ${format(s.copies, 3)} ${s.copies === 1 ? "copy" : "copies"} of the weights` + (s.bound > 0 ? `; bound ${time(s.bound)}` : "");
  return shortened(facts, 13, room);
}
function paintPanel(pen, n, s) {
  let drawn = 0;
  const visible = s.rows.map((_, r) => r).filter(r => rowTop(n, r) <= size.h && rowTop(n, r) + pitch() >= AXIS), end = Math.min(X(s.makespan), size.w);
  pen.text(10, panelTop(n) + TITLE / 2 - 1, titleOf(s, size.w - 20), style.fg, 13, "left", "bold");
  pen.clip(left, AXIS, size.w - left, size.h - AXIS, () => {
    for (const r of visible) {
      pen.rect(left, rowTop(n, r), end - left, H.row, "idle");
      drawn += paintRow(pen, s, r, rowTop(n, r));
      if (showMemory) paintMemory(pen, n, s, r);
    }
    paintStalls(pen, n, s);
    if (showPath) paintPath(pen, n, s);
  });
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find(k => k * pitch() >= 12) || 256;
  for (const r of visible) if (r % every === 0) pen.text(10, rowTop(n, r) + Math.max(H.row / 2, 3), "rank " + r, style.fg, Math.min(12, Math.max(9, H.row + 3)));
  if (showMemory && H.memory >= 12) for (const r of visible) {
    const {peak} = memoryOf(s, r), limit = limitOf(s, r);
    pen.text(10, rowTop(n, r) + H.row + H.memory / 2, "peak " + amount({inBytes: s.memory}, peak), peak > limit ? style.pick : style.dim, Math.min(11, H.memory - 4));
  }
  return drawn;
}

// Cells below three pixels are mixed: each column of pixels shows the share of every pass, from the top.
function paintRow(pen, s, r, y) {
  const row = s.rows[r], t = row.t, end = view.from + (size.w - left) / view.scale, first = firstAfter(row, view.from);
  const passes = passesOf(s, PASSES);
  let i = first, mixed = null;
  for (; i < row.n && t[2 * i] < end; ++i) {
    const a = X(t[2 * i]), b = X(t[2 * i + 1]);
    if (b - a >= 3) { paintCell(pen, s, r, i, a, b, y); continue; }
    mixed = mixed || PASSES.map(() => new Float32Array(Math.ceil(size.w) + 2));
    const own = passes[row.words[i]];
    for (const p of own) for (let x = Math.max(0, Math.floor(a)); x < b; ++x) mixed[p][x] += (Math.min(b, x + 1) - Math.max(a, x)) / own.length;
  }
  if (mixed) paintMixed(pen, mixed, y);
  return i - first;
}
function paintMixed(pen, mixed, y) {
  const used = new Float32Array(mixed[0].length);
  PASSES.forEach((p, k) => {
    const of = mixed[k];
    for (let x = Math.floor(left); x < of.length; ) {
      const share = Math.min(of[x], 1 - used[x]);
      if (share <= 0.004) { ++x; continue; }
      const from = x, above = used[x];
      for (; x < of.length && Math.abs(Math.min(of[x], 1 - used[x]) - share) < 0.02 && Math.abs(used[x] - above) < 0.02; ++x) if (x !== from) used[x] += share;
      used[from] += share;
      pen.rect(from, y + H.row * above, x - from, H.row * share, style[p]);
    }
  });
}
// One size of numbers for a schedule: as large as fits into its narrowest cell, if that can be read.
function fontOf(s) {
  const most = Math.min(13, H.row * 0.62);
  if (!s.narrowest) s.narrowest = Math.min(...s.words.filter(w => w.length === 6 && w[3] < 4 && w[1] > 0).map(w => w[1]));
  const fits = (s.narrowest * view.scale - 3.5) / (0.6 * String(s.micro - 1).length);
  return fits >= 8 ? Math.min(most, fits) : most;
}
function paintCell(pen, s, r, i, a, b, y) {
  const ops = opsOf(s, r, i), parts = ops.map(o => (o[1] === "B" ? 2 : 1) + (o[3] ? 1 : 0)), sum = parts.reduce((p, q) => p + q), font = fontOf(s);
  let x = a;
  ops.forEach((o, k) => {
    const w = (b - a) * parts[k] / sum, x1 = x + w, own = x + (o[3] ? w / parts[k] : 0), x0 = Math.max(own, left), name = String(o[2]);
    if (own > x) pen.rect(x, y, own - x, H.row, style.R);
    if (x1 > left) {
      pen.rect(x0, y, x1 - x0, H.row, style[o[1]]);
      if (font >= 7 && x1 - x0 >= 0.6 * font * name.length + 3) pen.text((x0 + x1) / 2, y + H.row / 2, name, style[o[1] + "t"], font, "center");
      if (x1 - x0 > 6 && H.row >= 7 && o[4] > 0) pen.rect(x0 + 2, y + H.row - Math.max(2, H.row / 8), x1 - x0 - 4, Math.max(1, H.row / 14), style[o[1] + "t"]);
    }
    x = x1;
  });
  if (b - a > 4 && H.row >= 5) { const width = ops.length > 1 ? Math.min(2, (b - a) / 24, H.row / 8) : Math.min(0.5, (b - a) / 30); pen.frame(a + width / 2, y + width / 2, b - a - width, H.row - width, style.frame, width); }
}

// The longest stalls in view, each with its reason, where that covers nothing but idle time.
function idleBetween(s, r, from, to) { const row = s.rows[r], i = firstAfter(row, from + 1e-9 * s.makespan); return i >= row.n || row.t[2 * i] >= to - 1e-9 * s.makespan; }
function paintStalls(pen, n, s) {
  const taken = [];
  let labels = 0;
  for (const w of stallsOf(s)) {
    if (labels >= 8) break;
    const x0 = Math.max(X(w.from), left), x1 = Math.min(X(w.to), size.w), y = rowTop(n, w.r), high = 13;
    if (x1 - x0 < 20 || y > size.h || y + H.row < AXIS) continue;
    const by = `${w.op} of rank ${w.rank}`, text = [`waits ${time(w.to - w.from, 3)} for ${by}`, `waits for ${by}`, `for ${by}`, `for ${w.op}`, w.op].find(text => widthOf(text, 11) + 8 <= x1 - x0);
    if (!text) continue;
    const width = widthOf(text, 11) + 8, x = (x0 + x1 - width) / 2, top = y + H.row / 2 - high / 2, at = t => view.from + (t - left) / view.scale;
    const last = Math.floor((top + high - rowTop(n, 0)) / pitch()), begin = Math.floor((top - rowTop(n, 0)) / pitch());
    let free = top >= rowTop(n, 0) - 1 && top + high <= rowTop(n, s.rows.length) + 1 && !(H.memory && H.row < high);
    for (let r = Math.max(0, begin); free && r <= last && r < s.rows.length; ++r) free = (r === w.r || rowTop(n, r) + H.row <= top || rowTop(n, r) >= top + high) || idleBetween(s, r, at(x), at(x + width));
    if (!free || taken.some(t => Math.abs(t[1] - top) < high + 1 && x < t[0] + t[2] && t[0] < x + width)) continue;
    taken.push([x, top, width]); ++labels;
    pen.rect(x, top, width, high, style.bg);
    pen.text(x + width / 2, top + high / 2, text, style.fg, 11, "center");
  }
}

// Memory of all rows, and what the ranks have for it, on one scale.
const limitOf = (s, r) => s.limits && s.limits[r] !== null ? s.limits[r] : Infinity;
function memoryScale() {
  let top = 1e-9;
  for (const s of shownPanels()) s.rows.forEach((_, r) => { const limit = limitOf(s, r); top = Math.max(top, memoryOf(s, r).peak, isFinite(limit) ? limit : 0); });
  return top;
}
function paintMemory(pen, n, s, r) {
  const {steps, peak} = memoryOf(s, r), top = memoryScale.now, h = H.memory - 6, y = rowTop(n, r) + H.row + 4, limit = limitOf(s, r), Y = v => y + h - h * v / top;
  const from = view.from - 1 / view.scale, to = view.from + (size.w - left + 1) / view.scale;
  let path = "", at = 0, level = 0, before = 0;  // the highest level of each half pixel
  for (let k = 0; k < steps.length && steps[k] <= to; k += 2) {
    if (k + 2 < steps.length && steps[k + 2] < from) continue;
    const x = Math.max(left - 1, Math.round(2 * X(steps[k])) / 2);
    if (path === "") path = `M${x} ${px(y + h)}`;
    else if (x === at) { level = Math.max(level, steps[k + 1]); before = steps[k + 1]; continue; }
    else path += `V${px(Y(level))}H${px(at + 0.5)}V${px(Y(before))}H${x}`;
    at = x; level = before = steps[k + 1];
  }
  if (path) path += `V${px(Y(level))}`;
  if (path) pen.line(path + `H${px(Math.min(X(s.makespan), size.w + 1))}V${px(y + h)}Z`, "", 0, style.mem);
  pen.line(`M${left} ${px(y + h)}H${px(Math.min(X(s.makespan), size.w))}`, style.dim, 0.5);
  if (isFinite(limit)) {
    pen.line(`M${left} ${px(Y(limit))}H${px(Math.min(X(s.makespan), size.w))}`, style.pick, 1.5);
    if (H.memory >= 14 && r === 0) pen.text(Math.min(X(s.makespan), size.w) - 6, Math.max(Y(limit) + 8, y + 6), "limit " + amount({inBytes: s.memory}, limit), peak > limit ? style.pick : style.fg, 11, "right");
  }
}

function arrow(pen, a, b, colour) {
  const x0 = a.x1, y0 = a.y + H.row / 2, x1 = b.x0, y1 = b.y + H.row / 2, bend = Math.max(12, Math.abs(x1 - x0) / 3);
  pen.line(`M${px(x0)} ${px(y0)}C${px(x0 + bend)} ${px(y0)} ${px(x1 - bend)} ${px(y1)} ${px(x1)} ${px(y1)}`, colour, 1.5);
  pen.line(`M${px(x1)} ${px(y1)}l-6 -3.5v7Z`, "", 0, colour);
}
function paintPath(pen, n, s) {
  s.path.forEach((c, k) => {
    const b = cellBox(n, c);
    if (b.x1 < left || b.x0 > size.w) return;
    const thick = Math.min(3, H.row / 5, Math.max(1, (b.x1 - b.x0) / 7));
    if (b.x1 - b.x0 < 4 || H.row < 6) pen.rect(b.x0, b.y + H.row / 2 - 1, Math.max(1, b.x1 - b.x0), 2, style.path);
    else pen.frame(b.x0 + thick / 2, b.y + thick / 2, b.x1 - b.x0 - thick, H.row - thick, style.path, thick);
    if (k > 0 && s.path[k - 1][0] !== c[0]) { const a = cellBox(n, s.path[k - 1]); if (b.x1 - b.x0 < 4) pen.line(`M${px(a.x1)} ${px(a.y + H.row / 2)}L${px(b.x0)} ${px(b.y + H.row / 2)}`, style.path, 1.5); else arrow(pen, a, b, style.path); }
  });
}
function paintChosen(pen) {
  const {n, r, i} = chosen, at = cellBox(n, [r, i]), {inputs, outputs} = neighbours(DATA[n], r, i);
  pen.clip(left, AXIS, size.w - left, size.h - AXIS, () => {
    pen.frame(at.x0 - 1, at.y - 1, Math.max(3, at.x1 - at.x0 + 2), H.row + 2, style.pick, 3);
    for (const c of inputs) arrow(pen, cellBox(n, c), at, style.pick);
    for (const c of outputs) arrow(pen, at, cellBox(n, c), style.dim);
  });
}
)html";

}  // namespace pipesched::detail
