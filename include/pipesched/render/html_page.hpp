// SPDX-License-Identifier: MIT
#pragma once

// The page that render_html() fills with data: one file, no server, no network. It draws only the visible cells, on a
// canvas, so that large schedules stay usable. Times may have any unit: the page opens fitted to the window.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_page_head = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pipeline schedules</title>
<style>
:root { --bg:#fff; --fg:#1c1c1c; --dim:#666; --line:#d4d4d4; --hatch:#bbb; --frame:#000; --pick:#d0021b; --path:#c2185b; --card:#fffff4;
  --F:#fbbf5b; --B:#74b257; --I:#c4e6a6; --W:#3f78b5; --R:#cda5dc; --Ft:#000; --Bt:#000; --It:#000; --Wt:#fff; --Rt:#000; --mem:#8a5fbf55; }
:root[data-theme=dark] { --bg:#17191c; --fg:#eaeaea; --dim:#9aa0a6; --line:#3a3d42; --hatch:#4a4f57; --frame:#fff; --pick:#ff6b6b; --path:#ff5fa2; --card:#23262b;
  --F:#e0a03c; --B:#5c9a42; --I:#9cc97b; --W:#4f8fd3; --R:#b085c4; --mem:#b58cff55; }
* { box-sizing:border-box; }
html, body { margin:0; height:100%; overflow:hidden; background:var(--bg); color:var(--fg); font:13px/1.4 system-ui, sans-serif; }
body { display:flex; flex-direction:column; }
header { display:flex; flex-wrap:wrap; gap:6px; align-items:center; padding:6px 10px; border-bottom:1px solid var(--line); }
button { font:inherit; color:inherit; background:var(--card); border:1px solid var(--line); border-radius:4px; padding:2px 8px; cursor:pointer; }
button[aria-pressed=true] { outline:2px solid var(--pick); }
.key { display:inline-block; width:16px; height:12px; border:1px solid var(--frame); vertical-align:-2px; margin:0 3px 0 8px; }
#legend { margin-left:-8px; }
#legend span { white-space:nowrap; }
#unit { color:var(--dim); margin-left:8px; }
#notes { max-height:6.5em; overflow:auto; margin:0; padding:4px 10px; border-bottom:1px solid var(--line); color:var(--dim); list-style:none; }
#notes:empty { display:none; }
#stage { flex:1; position:relative; min-height:0; }
canvas { position:absolute; inset:0; width:100%; height:100%; display:block; outline-offset:-2px; }
#tip { position:absolute; pointer-events:none; display:none; background:var(--card); border:1px solid var(--dim); border-radius:4px; padding:4px 8px; max-width:420px; white-space:pre-line; z-index:2; }
#chosen { padding:5px 10px; border-top:1px solid var(--line); min-height:2.2em; color:var(--fg); }
#help { display:none; position:absolute; right:12px; top:12px; background:var(--card); border:1px solid var(--dim); border-radius:6px; padding:10px 14px; z-index:3; grid-template-columns:auto auto; gap:2px 16px; max-width:min(560px,100% - 24px); }
#help.open { display:grid; }
#help dd { margin:0; }
</style>
</head>
<body>
<header>
<button id="fit" title="0">Fit</button><button id="zoomin" title="+">+</button><button id="zoomout" title="-">&minus;</button>
<button id="path" aria-pressed="false" title="c">Critical path</button>
<button id="memory" aria-pressed="false" title="m">Memory</button>
<button id="theme" title="t">Light / dark</button><button id="helpbutton" title="?">Keys</button>
<div id="legend"><span><i class="key" style="background:var(--F)"></i>forward</span> <span><i class="key" style="background:var(--B)"></i>backward</span> <span><i class="key" style="background:var(--I)"></i>for inputs</span> <span><i class="key" style="background:var(--W)"></i>for weights</span> <span id="again"><i class="key" style="background:var(--R)"></i>recompute</span> <span><i class="key" style="background:linear-gradient(90deg,var(--F) 40%,var(--B) 40%);border-width:2px"></i>overlapped pair</span> <span><i class="key" style="background:repeating-linear-gradient(135deg,var(--bg) 0 3px,var(--dim) 3px 4px);border-color:var(--line)"></i>idle</span> <span><i class="key" style="border:0;height:6px;border-bottom:2px solid var(--frame);vertical-align:2px"></i><b id="later" style="font-weight:normal">a later stage of the rank</b></span> <span title="the number in a cell"><i class="key" style="border:0;text-align:center;font:12px/12px system-ui,sans-serif;font-style:normal">7</i>micro-batch</span> <span id="unit">1 activation: a micro-batch through all stages of a rank</span></div>
</header>
<ul id="notes">)html";

inline constexpr std::string_view html_page_middle = R"html(</ul>
<div id="stage"><canvas id="canvas" tabindex="0" role="application" aria-label="Timeline. Arrow keys choose a cell, plus and minus zoom, question mark lists all keys."></canvas><div id="tip" role="tooltip"></div>
<dl id="help"><dt>arrows</dt><dd>choose the next cell to the left, right, above or below</dd>
<dt>+ &minus;</dt><dd>zoom in, out (also ctrl + wheel)</dd>
<dt>shift + arrows, drag, wheel</dt><dd>move</dd>
<dt>0</dt><dd>fit to the window</dd>
<dt>c</dt><dd>critical path of each schedule</dd>
<dt>m</dt><dd>live activations per rank; 1 is one micro-batch through the rank's whole share. Bytes where the costs know them, and a line at what the rank has for them</dd>
<dt>t</dt><dd>light or dark</dd>
<dt>Esc</dt><dd>choose nothing</dd>
<dt>?</dt><dd>this list</dd></dl></div>
<div id="chosen" aria-live="polite">Hover over a cell, or click one to see what it needs and what needs it.</div>
<script>
"use strict";
const DATA = )html";

inline constexpr std::string_view html_page_tail = R"html(;
const $ = id => document.getElementById(id), canvas = $("canvas"), g = canvas.getContext("2d");
const ROW = 22, GAP = 46, AXIS = 26;
let left = 90, view = {from: 0, scale: 0, y: 0}, fitted = true, chosen = null, showPath = false, showMemory = false, size = {w: 0, h: 0};

// One op of the notation: [stage, letter, micro, true if it recomputes inside].
const parse = text => (text.match(/\d+[A-Z]+\d+/g) || []).map(o => { const m = /(\d+)(R?)([FBIWR])(\d+)/.exec(o) || /(\d+)()(R)(\d+)/.exec(o); return [+m[1], m[3], +m[4], m[2] === "R"]; });
const format = n => String(+n.toPrecision(7));
const bytes = n => { const k = n >= 1000 ? Math.min(6, Math.floor(Math.log10(n) / 3)) : 0; return +(n / 1000 ** k).toPrecision(3) + " " + ["", "k", "M", "G", "T", "P", "E"][k] + "B"; };
for (const s of DATA) {
  s.rows = s.rows.map(r => { const names = r[0] ? r[0].split(" ") : []; return {names, ops: names.map(parse), t: r[1]}; });
  s.makespan = Math.max(0, ...s.rows.map(r => r.t.length ? r.t[r.t.length - 1] : 0));
  s.waits = new Map(s.gaps.map(w => [w[0] + "," + w[1], w]));
  s.index = null;
  s.again = new Set();  // stage and micro-batch of what is recomputed
  for (const row of s.rows) for (const ops of row.ops) for (const [st, p, m, inside] of ops) if (p === "R" || inside) s.again.add(st + "," + m);
  s.onPath = new Set(s.path.map(p => p.join()));
}
const ends = Math.max(...DATA.map(s => s.makespan)), longest = ends > 0 ? Math.max(ends, 1e-299) : 1;

// The cell that makes each tensor; filled when a cell is first chosen.
function indexed(s) {
  if (s.index) return s.index;
  s.index = new Map();
  s.rows.forEach((row, r) => row.ops.forEach((ops, i) => { for (const [st, p, m] of ops) s.index.set((p === "B" ? "I" : p) + st + "," + m, [r, i]); }));
  return s.index;
}
function neighbours(s, r, i) {
  const index = indexed(s), inputs = [], outputs = [], same = (a, b) => a[0] === b[0] && a[1] === b[1];
  const add = (list, key) => { const c = index.get(key); if (c && !same(c, [r, i]) && !list.some(d => same(c, d))) list.push(c); };
  for (const [st, p, m] of s.rows[r].ops[i]) {
    if (p === "F") {
      if (st > 0) add(inputs, "F" + (st - 1) + "," + m);
      add(outputs, "F" + (st + 1) + "," + m); add(outputs, (index.has("R" + st + "," + m) ? "R" : "I") + st + "," + m);
    } else if (p === "R") { add(inputs, "F" + st + "," + m); add(outputs, "I" + st + "," + m);
    } else if (p === "W") { add(inputs, "I" + st + "," + m);
    } else {
      add(inputs, (index.has("R" + st + "," + m) ? "R" : "F") + st + "," + m); add(inputs, "I" + (st + 1) + "," + m);
      add(outputs, "I" + (st - 1) + "," + m); if (p === "I") add(outputs, "W" + st + "," + m);
    }
  }
  return {inputs, outputs};
}

const rowHeight = () => ROW + (showMemory ? 26 : 0);
const panelHeight = s => AXIS + s.rows.length * rowHeight() + GAP;
function panelTop(n) { let y = 24 - view.y; for (let k = 0; k < n; ++k) y += panelHeight(DATA[k]); return y; }
const contentHeight = () => DATA.reduce((h, s) => h + panelHeight(s), 24);
const X = time => left + (time - view.from) * view.scale;
const rowTop = (n, r) => panelTop(n) + AXIS + r * rowHeight();
// The first cell of a row that ends after a time.
function firstAfter(t, time) { let a = 0, b = t.length / 2; while (a < b) { const c = (a + b) >> 1; if (t[2 * c + 1] > time) b = c; else a = c + 1; } return a; }

function clamp() {
  const room = Math.max(50, size.w - left - 16), least = room / longest;
  view.scale = fitted ? least : Math.min(Math.max(view.scale, least), least * 1e5);
  fitted = view.scale === least;  // stays so when the window changes
  view.from = Math.min(Math.max(view.from, 0), Math.max(0, longest - room / view.scale));
  view.y = Math.min(Math.max(view.y, 0), Math.max(0, contentHeight() - size.h));
}
function zoom(factor, at) {
  const time = view.from + (at - left) / view.scale;
  fitted = false; view.scale *= factor; clamp(); view.from = time - (at - left) / view.scale; draw();
}
function fit() { view = {from: 0, scale: 0, y: 0}; fitted = true; draw(); }

let style = {};
function readStyle() {
  const css = getComputedStyle(document.documentElement);
  for (const name of ["bg", "fg", "dim", "line", "hatch", "frame", "pick", "path", "mem", "F", "B", "I", "W", "R", "Ft", "Bt", "It", "Wt", "Rt"]) style[name] = css.getPropertyValue("--" + name).trim();
  const tile = document.createElement("canvas"), c = tile.getContext("2d");
  tile.width = tile.height = 6; c.strokeStyle = style.hatch; c.beginPath(); c.moveTo(0, 6); c.lineTo(6, 0); c.stroke();
  style.idle = g.createPattern(tile, "repeat");
}

{ // The legend names what a bar means in these schedules.
  const two = DATA.some(s => s.chunks.length > 1), more = DATA.some(s => s.hosted.some(h => h.some(n => n > 1)));
  $("later").textContent = [more && "a later stage of the rank", two && "replica 1"].filter(Boolean).join(", or ");
  $("later").parentNode.style.display = two || more ? "" : "none";
  $("unit").style.display = more ? "" : "none";
  $("again").style.display = DATA.some(s => s.again.size > 0) ? "" : "none";
}

let asked = false;
function draw() { if (!asked) { asked = true; requestAnimationFrame(paint); } }
function paint() {
  asked = false; clamp();
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(size.w * ratio) || canvas.height !== Math.round(size.h * ratio)) { canvas.width = Math.round(size.w * ratio); canvas.height = Math.round(size.h * ratio); }
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.fillStyle = style.bg; g.fillRect(0, 0, size.w, size.h);
  g.font = "12px system-ui, sans-serif"; g.textBaseline = "middle";
  let drawn = 0;
  DATA.forEach((s, n) => {
    const top = panelTop(n);
    if (top > size.h || top + panelHeight(s) < 0) return;
    g.fillStyle = style.fg; g.textAlign = "left"; g.fillText(s.title, 10, top - 6);
    paintAxis(n, s);
    const visible = s.rows.map((_, r) => r).filter(r => rowTop(n, r) <= size.h && rowTop(n, r) + rowHeight() >= 0);
    g.fillStyle = style.idle;
    for (const r of visible) g.fillRect(left, rowTop(n, r), Math.min(X(s.makespan), size.w) - left, ROW);
    for (const r of visible) {
      const y = rowTop(n, r);
      drawn += paintRow(s, r, y);
      if (showMemory) paintMemory(s, r, y + ROW + 2, 22);
    }
    if (showPath) paintPath(n, s);
  });
  if (chosen) paintChosen();
  canvas.dataset.drawn = drawn;
}
function paintRow(s, r, y) {
  const row = s.rows[r], t = row.t, end = view.from + (size.w - left) / view.scale;
  let drawn = 0, i = firstAfter(t, view.from);
  g.textAlign = "center";
  while (i < row.names.length && t[2 * i] < end) {
    const a = Math.max(X(t[2 * i]), left), b = X(t[2 * i + 1]), ops = row.ops[i];
    ++drawn;
    if (b - a < 1.2) {  // too narrow to see: one line, then the first cell of the next pixel
      ops.forEach((o, k) => { g.fillStyle = style[o[1]]; g.fillRect(a, y + k * ROW / ops.length, 1.2, ROW / ops.length); });
      i = Math.max(i + 1, firstAfter(t, view.from + (a + 1.2 - left) / view.scale));
      continue;
    }
    const parts = ops.map(o => (o[1] === "B" ? 2 : 1) + (o[3] ? 1 : 0)), sum = parts.reduce((p, q) => p + q);
    let x = X(t[2 * i]);
    ops.forEach((o, k) => {
      const w = (b - X(t[2 * i])) * parts[k] / sum, x1 = x + w, own = x + (o[3] ? w / parts[k] : 0), x0 = Math.max(own, left);
      if (own > Math.max(x, left)) { g.fillStyle = style.R; g.fillRect(Math.max(x, left), y, own - Math.max(x, left), ROW); }
      if (x1 > left) {
        g.fillStyle = style[o[1]]; g.fillRect(x0, y, x1 - x0, ROW);
        const name = String(o[2]);
        if (x1 - x0 > 7 * name.length + 3) { g.fillStyle = style[o[1] + "t"]; g.fillText(name, (x0 + x1) / 2, y + ROW / 2); }
        if (x1 - x0 > 6 && s.chunks[o[2] >= s.split ? 1 : 0][o[0]] > 0) { g.fillStyle = style[o[1] + "t"]; g.fillRect(x0 + 2, y + ROW - 3, x1 - x0 - 4, 1.5); }
      }
      x = x1;
    });
    if (b - a > 3) { g.strokeStyle = style.frame; g.lineWidth = ops.length > 1 ? 2 : 0.4; g.strokeRect(a, y, b - a, ROW); }
    ++i;
  }
  g.fillStyle = style.bg; g.fillRect(0, y, left, ROW);
  g.fillStyle = style.fg; g.textAlign = "left"; g.fillText("rank " + r, 10, y + ROW / 2);
  return drawn;
}
// Steps of live memory along a row: [time, level, ...]; computed when first shown.
function memoryOf(s, r) {
  const row = s.rows[r];
  if (row.memory) return row.memory;
  const steps = [0, 0], share = m => 1 / s.hosted[m >= s.split ? 1 : 0][r]; let now = 0, peak = 0;  // 1: one micro-batch through the rank's share
  // The memory that an op keeps from its start (F, R) or its end (the others, negative where it frees).
  const bytes = (p, st, m) => (s.lengths ? s.lengths[m] : 1) * s.memory[p][st], keeps = (p, st, m) => s.memory ? bytes(p, st, m) : p === "F" || p === "R" ? share(m) : p === "I" ? 0 : -share(m);
  const has = st => s.forwardOnly ? "none" : s.backward[st] || "full";
  let level = 0;
  const rise = (time, to) => { if (to !== level) steps.push(time, level = to); peak = Math.max(peak, to); };
  row.ops.forEach((ops, i) => {
    let runs = 0;
    for (const [st, p, m, inside] of ops) {
      if (p === "F") now += keeps("F", st, m); else if (p === "R" || inside) now += keeps("R", st, m);
      if (s.memory) runs += inside ? Math.max(bytes("run" + p, st, m), bytes("runR", st, m)) : bytes("run" + p, st, m);
    }
    rise(row.t[2 * i], now + runs);
    for (const [st, p, m] of ops)
      if (p === "F") now -= has(st) === "none" ? keeps("F", st, m) : s.again.has(st + "," + m) ? keeps("R", st, m) : 0;
      else if (p === "I" && has(st) === "input") now -= keeps("F", st, m);
      else if (p !== "R") now += keeps(p, st, m);
    rise(row.t[2 * i + 1], now);
  });
  steps.push(s.makespan, now);
  return row.memory = {steps, peak};
}
function paintMemory(s, r, y, h) {
  const {steps, peak} = memoryOf(s, r), top = Math.max(1e-9, ...s.rows.map((_, k) => Math.max(memoryOf(s, k).peak, s.limits && isFinite(s.limits[k]) ? s.limits[k] : 0)));
  g.save(); g.beginPath(); g.rect(left, y, size.w - left, h); g.clip();
  g.fillStyle = style.mem; g.beginPath(); g.moveTo(X(0), y + h);
  for (let k = 0; k < steps.length; k += 2) {
    if (k > 0) g.lineTo(X(steps[k]), y + h - h * steps[k - 1] / top);
    g.lineTo(X(steps[k]), y + h - h * steps[k + 1] / top);
  }
  g.lineTo(X(s.makespan), y + h); g.fill();
  if (s.limits && isFinite(s.limits[r])) { const at = y + h - h * s.limits[r] / top; g.strokeStyle = style.pick; g.lineWidth = 1.5; g.beginPath(); g.moveTo(left, at); g.lineTo(X(s.makespan), at); g.stroke(); }
  g.restore();
  g.fillStyle = style.dim; g.textAlign = "left"; const over = s.limits && peak > s.limits[r]; if (over) g.fillStyle = style.pick;
  g.fillText("peak " + (s.memory ? bytes(peak) : format(peak)), 10, y + h / 2);
}
function paintAxis(n, s) {
  const y = panelTop(n) + AXIS - 6, room = (size.w - left) / 80, span = (size.w - left) / view.scale;
  const ten = 10 ** Math.floor(Math.log10(span / room)), step = [1, 2, 5, 10].map(k => k * ten).find(k => span / k <= room) || 10 * ten;
  g.strokeStyle = style.line; g.fillStyle = style.dim; g.textAlign = "center"; g.lineWidth = 1;
  if (!(step > 0)) return;
  for (let k = Math.ceil(view.from / step), t; X(t = k * step) < size.w; ++k) {
    g.beginPath(); g.moveTo(X(t), y + 3); g.lineTo(X(t), y + 6 + s.rows.length * rowHeight()); g.stroke();
    g.fillText(format(t), X(t), y - 3);
  }
}
function box(n, [r, i]) {
  const t = DATA[n].rows[r].t;
  return {x0: X(t[2 * i]), x1: X(t[2 * i + 1]), y: rowTop(n, r)};
}
function arrow(a, b, colour) {
  g.strokeStyle = g.fillStyle = colour; g.lineWidth = 1.5;
  const x0 = a.x1, y0 = a.y + ROW / 2, x1 = b.x0, y1 = b.y + ROW / 2, bend = Math.max(12, Math.abs(x1 - x0) / 3);
  g.beginPath(); g.moveTo(x0, y0); g.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1); g.stroke();
  g.beginPath(); g.moveTo(x1, y1); g.lineTo(x1 - 6, y1 - 3.5); g.lineTo(x1 - 6, y1 + 3.5); g.fill();
}
function inPlot(f) { g.save(); g.beginPath(); g.rect(left, 0, size.w - left, size.h); g.clip(); f(); g.restore(); }
function paintPath(n, s) {
  inPlot(() => {
    s.path.forEach((c, k) => {
      const b = box(n, c);
      if (b.x1 < left || b.x0 > size.w) return;
      g.strokeStyle = style.path; g.lineWidth = 3; g.strokeRect(b.x0 + 1, b.y + 1, Math.max(1, b.x1 - b.x0 - 2), ROW - 2);
      if (k > 0 && s.path[k - 1][0] !== c[0]) arrow(box(n, s.path[k - 1]), b, style.path);
    });
  });
}
function paintChosen() {
  const {n, r, i} = chosen, at = box(n, [r, i]), {inputs, outputs} = neighbours(DATA[n], r, i);
  inPlot(() => {
    g.strokeStyle = style.pick; g.lineWidth = 3; g.strokeRect(at.x0, at.y, at.x1 - at.x0, ROW);
    for (const c of inputs) arrow(box(n, c), at, style.pick);
    for (const c of outputs) arrow(at, box(n, c), style.dim);
  });
}

const words = {F: "forward", B: "backward", I: "backward for inputs", W: "backward for weights", R: "recomputation"};
function describe({n, r, i}) {
  const s = DATA[n], row = s.rows[r], wait = s.waits.get(r + "," + i), t = row.t;
  let text = row.names[i] + ": " + row.ops[i].map(o => (o[3] ? "recomputation and " : "") + words[o[1]] + " of micro-batch " + o[2] + " through stage " + o[0]).join(", overlapped with ");
  text += "\nrank " + r + ", from " + format(t[2 * i]) + " to " + format(t[2 * i + 1]) + ", lasts " + format(t[2 * i + 1] - t[2 * i]);
  if (wait) text += "\nwaited " + format(t[2 * i] - (i > 0 ? t[2 * i - 1] : 0)) + " for " + wait[4] + " from rank " + wait[2];
  if (s.onPath.has(r + "," + i)) text += "\non the critical path";
  return text;
}
function choose(c) {
  chosen = c;
  if (!c) { $("chosen").textContent = "Nothing chosen."; return draw(); }
  const s = DATA[c.n], {inputs, outputs} = neighbours(s, c.r, c.i), names = list => list.map(([r, i]) => s.rows[r].names[i] + " (rank " + r + ")").join(", ") || "nothing";
  $("chosen").textContent = describe(c).replace(/\n/g, "; ") + "; needs " + names(inputs) + "; is needed by " + names(outputs);
  draw();
}
function reveal({n, r, i}) {
  const b = box(n, [r, i]), t = DATA[n].rows[r].t;
  if (b.x0 < left || b.x1 > size.w) view.from = (t[2 * i] + t[2 * i + 1]) / 2 - (size.w - left) / 2 / view.scale;
  if (b.y < 0) view.y += b.y - AXIS; else if (b.y + ROW > size.h) view.y += b.y + ROW - size.h + 8;
}
function cellAt(x, y) {
  if (x < left) return null;
  for (let n = 0; n < DATA.length; ++n) {
    const r = Math.floor((y - rowTop(n, 0)) / rowHeight()), row = DATA[n].rows[r];
    if (!row || y - rowTop(n, r) > ROW) continue;
    const time = view.from + (x - left) / view.scale, i = firstAfter(row.t, time);
    return i < row.names.length && row.t[2 * i] <= time ? {n, r, i} : null;
  }
  return null;
}

let drag = null;
canvas.addEventListener("pointerdown", e => { drag = {x: e.offsetX, y: e.offsetY, from: view.from, vy: view.y, moved: false}; canvas.setPointerCapture(e.pointerId); canvas.focus(); });
canvas.addEventListener("pointermove", e => {
  if (drag) {
    if (Math.hypot(e.offsetX - drag.x, e.offsetY - drag.y) > 4) drag.moved = true;
    if (drag.moved) { view.from = drag.from - (e.offsetX - drag.x) / view.scale; view.y = drag.vy - (e.offsetY - drag.y); draw(); }
  }
  const c = drag && drag.moved ? null : cellAt(e.offsetX, e.offsetY), tip = $("tip");
  tip.style.display = c ? "block" : "none";
  if (!c) return;
  tip.textContent = describe(c);
  tip.style.left = Math.min(e.offsetX + 14, size.w - tip.offsetWidth - 6) + "px";
  tip.style.top = (e.offsetY + 18 + tip.offsetHeight > size.h ? e.offsetY - tip.offsetHeight - 10 : e.offsetY + 18) + "px";
});
canvas.addEventListener("pointerup", e => { if (drag && !drag.moved) choose(cellAt(e.offsetX, e.offsetY)); drag = null; });
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { $("tip").style.display = "none"; });
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  if (e.ctrlKey || e.metaKey) return zoom(Math.exp(-e.deltaY / 300), e.offsetX);
  view.from += (e.shiftKey ? e.deltaY : e.deltaX) / view.scale; if (!e.shiftKey) view.y += e.deltaY; draw();
}, {passive: false});

const toggle = { path: () => { showPath = !showPath; $("path").setAttribute("aria-pressed", showPath); }, memory: () => { showMemory = !showMemory; $("memory").setAttribute("aria-pressed", showMemory); } };
function theme(name) { document.documentElement.dataset.theme = name; readStyle(); draw(); }
function help() { $("help").classList.toggle("open"); }
const otherTheme = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
function step(dx, dy) {
  if (!chosen) return choose({n: 0, r: 0, i: firstAfter(DATA[0].rows[0].t, view.from)});
  let {n, r, i} = chosen; const t = DATA[n].rows[r].t, middle = (t[2 * i] + t[2 * i + 1]) / 2;
  if (dx) i = Math.min(Math.max(i + dx, 0), DATA[n].rows[r].names.length - 1);
  else {
    r += dy;
    if (r < 0 && n > 0) r = DATA[--n].rows.length - 1; else if (r >= DATA[n].rows.length && n + 1 < DATA.length) { ++n; r = 0; }
    r = Math.min(Math.max(r, 0), DATA[n].rows.length - 1);
    i = Math.min(firstAfter(DATA[n].rows[r].t, middle), DATA[n].rows[r].names.length - 1);
  }
  choose({n, r, i}); reveal(chosen);
}
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const far = (size.w - left) / 6 / view.scale, middle = left + (size.w - left) / 2;
  const keys = {
    "+": () => zoom(1.5, middle), "=": () => zoom(1.5, middle), "-": () => zoom(1 / 1.5, middle), "0": fit,
    c: () => { toggle.path(); draw(); }, m: () => { toggle.memory(); draw(); }, t: otherTheme, "?": help, Escape: () => { $("help").classList.remove("open"); choose(null); },
    ArrowLeft: () => e.shiftKey ? (view.from -= far, draw()) : step(-1, 0), ArrowRight: () => e.shiftKey ? (view.from += far, draw()) : step(1, 0),
    ArrowUp: () => e.shiftKey ? (view.y -= 80, draw()) : step(0, -1), ArrowDown: () => e.shiftKey ? (view.y += 80, draw()) : step(0, 1)};
  if (keys[e.key]) { $("tip").style.display = "none"; keys[e.key](); e.preventDefault(); }
});
$("fit").onclick = fit; $("theme").onclick = otherTheme; $("helpbutton").onclick = help;
$("zoomin").onclick = () => zoom(1.5, left + (size.w - left) / 2); $("zoomout").onclick = () => zoom(1 / 1.5, left + (size.w - left) / 2);
$("path").onclick = () => { toggle.path(); draw(); }; $("memory").onclick = () => { toggle.memory(); draw(); };
new ResizeObserver(() => { size = {w: $("stage").clientWidth, h: $("stage").clientHeight}; draw(); }).observe($("stage"));
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
</script>
</body>
</html>
)html";

}  // namespace pipesched::detail
