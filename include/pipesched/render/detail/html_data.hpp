// SPDX-License-Identifier: MIT
#pragma once

// The page's script, first part: reads the data that pack_timeline.hpp packs, and writes numbers as text.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_data_script = R"html(;
const $ = id => document.getElementById(id), DATA = PAGE.panels, LETTER = " FBIWRBI";

// Functions of the numbers in a text of digits of 5 bits; see pack_timeline.hpp.
const DIGIT = new Map([..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"].map((c, k) => [c.charCodeAt(0), k]));
function reader(text) {
  let at = 0;
  return () => {
    for (let n = 0, unit = 1; ; unit *= 32) {
      const d = DIGIT.get(text.charCodeAt(at++));
      n += (d & 31) * unit;
      if (d < 32) return n;
    }
  };
}
const signed = n => n % 2 ? -(n + 1) / 2 : n / 2;

// The rows of a schedule: number of cells n, word and times of each (start, end), micro-batches (two a cell). Read when
// a schedule is first shown.
function rowsOf(s) {
  if (s.rows) return s.rows;
  const next = reader(s.cells), counts = s.stages.map(() => next()), all = new Uint32Array(counts.reduce((a, b) => a + b, 0));
  for (let k = 0; k < all.length;) {
    const n = next();
    if (n % 2 === 0) { all[k++] = n / 2; continue; }
    for (let back = next(), left = (n - 1) / 2; left > 0; --left, ++k) all[k] = all[k - back];
  }
  let from = 0;
  s.rows = counts.map(n => rowOf(s, all.subarray(from, from += n)));
  s.makespan = Math.max(s.makespan, ...s.rows.map(r => r.n ? r.t[2 * r.n - 1] : 0));
  let rank = 0, index = 0;
  const step = reader(s.path), cells = [];
  for (let k = 0; k < s.pathLength; ++k) cells.push([rank += signed(step()), index += signed(step())]);
  s.path = cells; s.onPath = new Set(cells.map(c => c.join()));
  s.again = new Set();  // stage and micro-batch of what is recomputed
  if (s.words.some(w => w[3] >= 5 || w[6] >= 5)) s.rows.forEach((row, r) => { for (let i = 0; i < row.n; ++i) for (const [st, p, m, inside] of opsOf(s, r, i)) if (p === "R" || inside) s.again.add(st + "," + m); });
  return s.rows;
}
function rowOf(s, words) {
  const n = words.length, t = new Float64Array(2 * n), m = new Int32Array(2 * n), expected = new Int32Array(2048);
  for (let i = 0, time = 0; i < n; ++i) {
    const w = s.words[words[i]];
    t[2 * i] = time += w[0]; t[2 * i + 1] = time += w[1];
    for (let o = 3; o < w.length; o += 3) {
      const p = w[o], kind = (p === 2 || p === 3 || p > 5 ? 0 : p) * 256 + w[o + 1];  // as timeline_packer::kind_of()
      m[2 * i + (o > 3)] = expected[kind] += w[o + 2]; ++expected[kind];
    }
  }
  return {n, words, t, m};
}
// The ops of a cell: stage, letter, micro-batch, true if it recomputes inside, index of the stage on its rank.
function opsOf(s, r, i) {
  const row = s.rows[r], w = s.words[row.words[i]], ops = [];
  for (let o = 3; o < w.length; o += 3) ops.push([s.stages[r][w[o + 1]], LETTER[w[o]], row.m[2 * i + (o > 3)], w[o] > 5, w[o + 1]]);
  return ops;
}
// The passes of each word as places in a list, for rows that are drawn from their words alone.
function passesOf(s, order) { return s.passes || (s.passes = s.words.map(w => w.length > 6 ? [order.indexOf(LETTER[w[3]]), order.indexOf(LETTER[w[6]])] : [order.indexOf(LETTER[w[3]])])); }
const opText = o => o[0] + (o[3] ? "R" : "") + o[1] + o[2];
function cellText(s, r, i) { const ops = opsOf(s, r, i).map(opText); return ops.length > 1 ? "(" + ops.join(";") + ")" : ops[0]; }

// The maker of each tensor: rank and index of the cell, by kind of op, stage and micro-batch. Filled when first asked.
const KIND = {F: 0, I: 1, B: 1, W: 2, R: 3};
function makerOf(s, letter, stage, micro) {
  const count = Math.max(...s.stages.flat()) + 1;
  if (stage < 0 || stage >= count) return null;
  if (!s.makers) {
    s.makers = new Int32Array(8 * count * s.micro).fill(-1);
    s.rows.forEach((row, r) => { for (let i = 0; i < row.n; ++i) for (const [st, p, m] of opsOf(s, r, i)) { const k = 2 * ((KIND[p] * count + st) * s.micro + m); s.makers[k] = r; s.makers[k + 1] = i; } });
  }
  const k = 2 * ((KIND[letter] * count + stage) * s.micro + micro);
  return s.makers[k] < 0 ? null : [s.makers[k], s.makers[k + 1]];
}
function neighbours(s, r, i) {
  const inputs = [], outputs = [], same = (a, b) => a[0] === b[0] && a[1] === b[1];
  const add = (list, letter, st, m) => { const c = makerOf(s, letter, st, m); if (c && !same(c, [r, i]) && !list.some(d => same(c, d))) list.push(c); };
  for (const [st, p, m] of opsOf(s, r, i)) {
    const again = makerOf(s, "R", st, m) ? "R" : "";
    if (p === "F") { add(inputs, "F", st - 1, m); add(outputs, "F", st + 1, m); add(outputs, again || "I", st, m);
    } else if (p === "R") { add(inputs, "F", st, m); add(outputs, "I", st, m);
    } else if (p === "W") { add(inputs, "I", st, m);
    } else {
      add(inputs, again || "F", st, m); add(inputs, "I", st + 1, m); add(outputs, "I", st - 1, m);
      if (p === "I") add(outputs, "W", st, m);
    }
  }
  return {inputs, outputs};
}

// The wait of a cell: length, op and its rank; nothing if it did not wait.
function waitOf(s, r, i) {
  const row = s.rows[r], which = s.words[row.words[i]][2];
  if (!which) return null;
  const [st, p, m] = opsOf(s, r, i)[which - 1], made = makerOf(s, p === "F" ? "F" : "I", p === "F" ? st - 1 : st + 1, m);
  if (!made) return null;
  const from = i > 0 ? row.t[2 * i - 1] : 0, by = opsOf(s, ...made).find(o => o[2] === m && o[0] === (p === "F" ? st - 1 : st + 1) && (o[1] === "F") === (p === "F"));
  return {r, i, from, to: row.t[2 * i], op: opText(by), rank: made[0]};
}
// The longest stalls of a schedule, the longest first.
function stallsOf(s) {
  if (s.stalls) return s.stalls;
  const long = [];
  rowsOf(s).forEach((row, r) => { for (let i = 0; i < row.n; ++i) { const w = s.words[row.words[i]]; if (w[2]) long.push([w[0], r, i]); } });
  long.sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2]);
  return s.stalls = long.slice(0, 40).map(([, r, i]) => waitOf(s, r, i)).filter(Boolean);
}

// Steps of live memory along a row: [time, level, ...]; computed when first shown. 1 is one micro-batch through the rank's
// share, or they are bytes.
function memoryOf(s, r) {
  const row = s.rows[r];
  if (row.memory) return row.memory;
  const steps = [0, 0], share = m => 1 / s.hosted[m >= s.split ? 1 : 0][r];
  const bytesOf = (p, st, m) => (s.lengths ? s.lengths[m] : 1) * s.memory[p][st];
  // Memory that an op keeps from its start (F, R) or its end (the others, negative where it frees).
  const keeps = (p, st, m) => s.memory ? bytesOf(p, st, m) : p === "F" || p === "R" ? share(m) : p === "I" ? 0 : -share(m);
  const has = st => s.forwardOnly ? "none" : s.backward[st] || "full";
  let now = 0, level = 0, peak = 0;
  const rise = (time, to) => { if (to !== level) steps.push(time, level = to); peak = Math.max(peak, to); };
  for (let i = 0; i < row.n; ++i) {
    const ops = opsOf(s, r, i);
    let runs = 0;
    for (const [st, p, m, inside] of ops) {
      if (p === "F") now += keeps("F", st, m); else if (p === "R" || inside) now += keeps("R", st, m);
      if (s.memory) runs += inside ? Math.max(bytesOf("run" + p, st, m), bytesOf("runR", st, m)) : bytesOf("run" + p, st, m);
    }
    rise(row.t[2 * i], now + runs);
    for (const [st, p, m] of ops)
      if (p === "F") now -= has(st) === "none" ? keeps("F", st, m) : s.again.has(st + "," + m) ? keeps("R", st, m) : 0;
      else if (p === "I" && has(st) === "input") now -= keeps("F", st, m);
      else if (p !== "R") now += keeps(p, st, m);
    rise(row.t[2 * i + 1], now);
  }
  steps.push(s.makespan, now);
  return row.memory = {steps, peak};
}

// Numbers as text: at most so many digits, as page_number() of the headline; bytes; times in seconds if the page knows their unit.
const format = (n, digits = 7) => { const m = +n.toPrecision(digits), size = Math.abs(m); return size === 0 || (size >= 1e-4 && size < 1e8) ? String(m) : m.toExponential(); };
const bytes = n => { const k = n >= 1000 ? Math.min(6, Math.floor(Math.log10(n) / 3)) : 0; return format(n / 1000 ** k, 3) + " " + ["", "k", "M", "G", "T", "P", "E"][k] + "B"; };
const SECONDS = {s: 1, ms: 1e-3, us: 1e-6}[PAGE.unit];
function unitFor(longest) {
  if (!SECONDS) return {name: "", times: 1};
  const all = [["s", 1], ["ms", 1e-3], ["\u00b5s", 1e-6], ["ns", 1e-9]], [name, size] = longest === 0 ? all[0] : all.find(u => longest * SECONDS >= u[1]) || all[3];
  return {name: " " + name, times: SECONDS / size};
}
function time(n, digits = 4) { const u = unitFor(Math.abs(n)); return format(n * u.times, digits) + u.name; }
const percent = part => (100 * part).toFixed(1) + " %";
const activations = n => format(n, 4) + (format(n, 4) === "1" ? " activation" : " activations");
const amount = (s, n) => s.inBytes ? bytes(n) : format(n, 4);
const escaped = text => String(text).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;"})[c]);

// A name for the address, and one entry a schedule even where names repeat.
{
  const used = new Map();
  for (const s of DATA) {
    const name = s.name.replace(/[^A-Za-z0-9_.-]+/g, "_"), count = (used.get(name) || 0) + 1;
    used.set(name, count); s.id = count > 1 ? name + "." + count : name;
    s.inBytes = DATA.every(d => d.bytes > 0); s.most = s.inBytes ? s.bytes : s.peak;
  }
}
// Round steps of an axis, at most so many.
function ticks(from, to, most) {
  const span = to - from, ten = 10 ** Math.floor(Math.log10(span / most)), step = [1, 2, 5, 10].map(k => k * ten).find(k => span / k <= most) || 10 * ten, list = [];
  if (!(step > 0)) return [from];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to + 1e-9 * span && list.length <= most + 1; ++k) list.push(k * step);
  return list;
}
)html";

}  // namespace pipesched::detail
