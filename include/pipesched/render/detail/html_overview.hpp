// SPDX-License-Identifier: MIT
#pragma once

// The page's script, second part: the overview, one bar a schedule, and the front of a plan. Both are drawings in SVG, so
// that a picture of them is the drawing itself.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_overview_script = R"html(
// Widths of texts, and pieces of a drawing.
const ruler = document.createElement("canvas").getContext("2d"), FONT = "system-ui, sans-serif";
function widthOf(text, size, weight = "normal") { ruler.font = weight + " " + size + "px " + FONT; return ruler.measureText(text).width; }
function shortened(text, size, room) {
  if (widthOf(text, size) <= room) return text;
  while (text.length > 1 && widthOf(text + "\u2026", size) > room) text = text.slice(0, -1);
  return text + "\u2026";
}
const px = n => +n.toFixed(2);
const box = (x, y, w, h, fill, more = "") => `<rect x="${px(x)}" y="${px(y)}" width="${px(Math.max(0, w))}" height="${px(h)}" fill="${fill}"${more}/>`;
const line = (path, stroke, width = 1, more = "") => `<path d="${path}" fill="none" stroke="${stroke}" stroke-width="${width}"${more}/>`;
const words = (x, y, text, fill, size = 12, anchor = "start", more = "") => `<text x="${px(x)}" y="${px(y)}" fill="${fill}" font-size="${px(size)}" text-anchor="${anchor}"${more}>${escaped(text)}</text>`;
const BOLD = ' font-weight="bold"', halo = () => ` paint-order="stroke" stroke="${style.bg}" stroke-width="4" stroke-linejoin="round"`;
// Something that opens schedules: a name for screen readers, a place for the pointer and the keyboard.
const mark = (open, name, hit, inside) => `<g class="mark" role="button" tabindex="-1" data-open="${open}" aria-label="${escaped(name)}"><title>${escaped(name)}</title>${hit}${inside}</g>`;
function drawing(w, h, label, inside, headline) {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" font-family="${FONT}" role="group" aria-label="${escaped(label)}">` +
    box(0, 0, w, h, style.bg) + (headline ? headlineAt(w, headline) : "") + inside + "</svg>\n";
}
// The pieces between which the headline may break: a name, its number and its unit stay together.
const PIECES = PAGE.headline.split(/(?<=[,;:]) | (?![\d.]|[mn\u00b5]?s\b)/);
$("headline").innerHTML = PIECES.map(text => `<span>${escaped(text)}</span>`).join(" ");
// The headline of a picture, so large that a thumbnail 300 pixels wide can be read, and what the costs are.
function headlineAt(w, h) {
  const most = Math.floor(40 * (w - 40) / widthOf(PAGE.headline, 40, "bold"));
  let size = most > 31 ? Math.min(40, most) : 40, lines = [];
  for (; size > 9; --size) {
    lines = [""];
    for (const word of PIECES) {
      const longer = (lines[lines.length - 1] + " " + word).trim();
      if (widthOf(longer, size, "bold") <= w - 40) lines[lines.length - 1] = longer; else lines.push(word);
    }
    if (lines.length * size * 1.25 <= h - 32) break;
  }
  return lines.map((text, k) => words(20, 12 + size * (1 + 1.25 * k), text, style.fg, size, "start", BOLD)).join("") +
    words(20, 12 + lines.length * size * 1.25 + 15, shortened($("facts").textContent, 14, w - 40), style.dim, 14);
}

// The origin of a picture, at its lower right.
const credit = (w, h) => words(w - 20, h - 9, "made with pipesched", style.dim, 12, "end");

// Schedules whose numbers are all the same, but for the rounding of sums, share a bar.
const groups = [];
for (const s of DATA) {
  const equal = (a, b) => a === b || (typeof a === "number" && typeof b === "number" && Math.abs(a - b) <= 1e-12 * Math.abs(a));
  const same = g => ["makespan", "idle", "peak", "bytes", "copies", "weights", "bound", "planned"].every(k => equal(DATA[g[0]][k], s[k]));
  const group = groups.find(same);
  group ? group.push(DATA.indexOf(s)) : groups.push([DATA.indexOf(s)]);
}
// Those of the headline come first in their bar, and in a picture their rows are larger: they are what a thumbnail can show.
const isNamed = n => PIECES.some(text => text.startsWith(DATA[n].name + " ")), isLarge = group => isNamed(group[0]);
for (const group of groups) group.sort((a, b) => isNamed(b) - isNamed(a) || a - b);
const namesOf = group => group.map(n => DATA[n].name), joined = group => namesOf(group).join(" = ");
// "zb1p = zb_greedy = zb_h1", as much of it as there is room for: "zb1p = 2 others", "zb1p = +2".
function nameOf(group, size, room) {
  const names = namesOf(group), others = k => k < names.length ? " = " + (names.length - k) + (names.length - k > 1 ? " others" : " other") : "";
  for (let k = names.length; k > 0; --k) { const text = names.slice(0, k).join(" = ") + others(k); if (widthOf(text, size, "bold") <= room) return text; }
  const more = names.length > 1 ? " = +" + (names.length - 1) : "";
  return shortened(names[0], size, room - widthOf(more, size, "bold")) + more;
}
// The name in a list of all schedules: "zb_h1 = zb1p" under the bar of zb1p.
const listed = n => { const first = groups.find(g => g.includes(n))[0]; return DATA[n].name + (first === n ? "" : " = " + DATA[first].name); };
// The end of the axis: bars far longer than most are cut.
function endOfScale(values) {
  const sorted = [...values].sort((a, b) => a - b), most = 2 * sorted[Math.floor((sorted.length - 1) / 2)];
  const longest = sorted[sorted.length - 1], end = Math.max(...sorted.filter(v => v <= most)) || 1;
  return longest <= 1.5 * end ? longest || 1 : end;
}

// The height of the headline of a picture.
const headOf = h => Math.max(50, Math.min(124, h / 5.4));
// Times of a column: in one unit, with the same decimals, as many as four digits of one of them need.
function column(times) {
  const u = unitFor(Math.max(...times)), texts = times.map(t => format(t * u.times, 4)), decimals = Math.max(...texts.map(t => (t.split(".")[1] || "").length));
  return texts.some(t => t.includes("e")) || decimals > 6 ? time : t => (t * u.times).toFixed(decimals) + u.name;
}

const LARGER = 1.7;  // of a row in a picture
function overview(w, h, picture) {
  const wide = w >= 760, top = picture ? headOf(h) : 0, lasts = column(DATA.map(s => s.makespan)), legend = 26, head = picture ? 44 : 40;
  const large = g => picture && isLarge(g), units = groups.reduce((sum, g) => sum + (large(g) ? LARGER : 1), 0);
  const row = Math.max(picture ? 8 : 18, Math.min(picture ? 140 : 220, (h - top - head - legend) / units)), heightOf = g => row * (large(g) ? LARGER : 1);
  const widest = picture ? 24 : wide ? Math.max(14, Math.min(row > 60 ? 20 : 17, w / (row > 60 ? 60 : 75))) : 12.5, size = Math.max(8, Math.min(widest, row * (picture ? 0.77 : 0.68)));
  const sizeOf = g => large(g) ? Math.min(32, Math.max(size, heightOf(g) * 0.77)) : size, small = picture ? 14 : Math.max(10, Math.min(12.5, size));
  const first = top + head, floor = first + units * row, all = Math.max(h, Math.ceil(floor + legend)), pad = picture ? 20 : 12;
  const names = Math.min(w * (picture ? 0.26 : wide ? 0.2 : 0.34), Math.max(60, ...groups.map(g => widthOf(joined(g), sizeOf(g), "bold")))) + pad + 10;
  const columns = [
    {name: "bubble", unit: "mean", of: s => percent(s.idle)},
    {name: wide ? "peak memory" : "memory", unit: DATA.every(s => s.inBytes) ? "" : wide ? "activations" : "", of: s => amount(s, s.most), bar: wide ? 46 : 0, part: s => s.most / Math.max(...DATA.map(d => d.most))},
    {name: "copies", unit: "of weights", of: s => format(s.copies, 3)}];
  for (const c of columns) c.width = Math.max(widthOf(c.name, small), widthOf(c.unit, small), (c.bar ? c.bar + 8 : 0) + Math.max(...DATA.map(s => widthOf(c.of(s), size)))) + (wide ? 24 : 12);
  const label = Math.max(...groups.map(g => widthOf(lasts(DATA[g[0]].makespan), sizeOf(g), "bold"))) + 14, room = () => w - pad - columns.reduce((sum, c) => sum + c.width, 0);
  while (columns.length > 1 && room() - label - names < 0.2 * w) columns.pop();  // bars come first; a click tells the rest
  const right = room();
  const end = endOfScale(DATA.map(s => s.makespan)), X = t => names + Math.min(1, t / end) * (right - label - names), scale = unitFor(end);
  let out = "";
  const marks = ticks(0, end, Math.max(2, (right - label - names) / 64));
  for (const t of marks) out += line(`M${px(X(t))} ${first - 4}V${px(floor)}`, style.line) + words(X(t), first - 10, format(t * scale.times) + (t === marks[marks.length - 1] ? scale.name : ""), style.dim, small, "middle");
  let at = right, under = first;
  for (const c of columns) { c.end = at += c.width; out += words(c.end, first - 25, c.name, style.fg, small, "end") + words(c.end, first - 10, c.unit, style.dim, small, "end"); }
  groups.forEach((g, k) => {
    const s = DATA[g[0]], y = under, height = heightOf(g), mid = y + height / 2, cut = s.makespan > end * (1 + 1e-9), text = mid + size * 0.36;
    const bar = Math.max(4, Math.min(16, height * 0.52), Math.min(64, height * 0.34)), own = sizeOf(g), reach = bar / 2 + Math.min(3, height / 6);
    under += height;
    const busy = s.makespan * (1 - s.idle), stop = X(s.makespan), colour = s.planned ? style.plan : style.busy, strong = s.planned || k === 0 ? BOLD : "";
    let inside = words(names - 10, mid + own * 0.36, nameOf(g, own, names - pad - 10), style.fg, own, "end", strong);
    inside += box(names, mid - bar / 2, stop - names, bar, style.idle) + box(names, mid - bar / 2, Math.min(X(busy), cut ? stop - 30 : stop) - names, bar, colour);
    if (cut) inside += line(`M${px(stop - 16)} ${px(mid + bar / 2 + 2)}l5 ${-bar - 4}m4 0l-5 ${bar + 4}`, style.bg, 2.5);
    if (s.bound > 0 && s.bound <= end) for (const [stroke, width] of [[style.bg, 4], [style.fg, 2]]) inside += line(`M${px(X(s.bound))} ${px(mid - reach)}V${px(mid + reach)}`, stroke, width);
    inside += words(stop + 4 + own / 6, mid + own * 0.36, lasts(s.makespan), style.fg, own, "start", strong);
    for (const c of columns) inside += words(c.end, text, c.of(s), style.fg, size, "end");
    const thin = Math.min(16, bar / 2);
    for (const c of columns) if (c.bar) inside += box(c.end - c.width + 24, mid - thin / 2, c.bar, thin, style.rest) + box(c.end - c.width + 24, mid - thin / 2, c.bar * c.part(s), thin, style.dim);
    const name = joined(g) + ": makespan " + time(s.makespan) + ", idle " + percent(s.idle) + (s.bound > 0 ? ", at least " + time(s.bound) + " for any order of such cells" : "") +
      ", peak " + (s.inBytes ? bytes(s.most) : activations(s.most)) + ", " + format(s.copies, 3) + (s.copies === 1 ? " copy" : " copies") + " of the weights" + (s.weights > 0 ? ", " + bytes(s.weights) + " of weights" : "");
    out += mark(g[0], name, box(2, y, w - 4, height, "transparent", ' class="hit"'), inside);
  });
  const y = floor + 17;
  let x = names;
  const entry = (width, drawn, text) => { if (x + width + widthOf(text, small) > w - pad && x > pad + 1) return; out += drawn + words(x + width + 5, y, text, style.dim, small); x += width + 22 + widthOf(text, small); };
  if (names + 420 > w) x = pad;
  entry(22, box(x, y - 9, 22, 9, style.busy), "busy");
  if (DATA.some(s => s.planned)) entry(22, box(x, y - 9, 22, 9, style.plan), "busy, planned");
  entry(22, box(x, y - 9, 22, 9, style.idle), "idle");
  if (DATA.some(s => s.bound > 0)) entry(3, line(`M${px(x + 1)} ${y - 12}v15`, style.fg, 2), "bound: no order of such cells is shorter");
  if (picture) out += credit(w, all);
  return {svg: drawing(w, all, "Overview: " + PAGE.headline, out, picture ? top : 0), height: all};
}

// The front: a point per limit of memory, joined in steps, with the bound and the best published family of each.
function front(w, h, picture) {
  const head = picture ? headOf(h) : 0, left = 78, right = w - 28, top = head + 46, floor = Math.max(top + 120, h - 52), points = PAGE.front;
  const plans = points.map(p => p.makespan), most = Math.max(...plans), shown = points.filter(p => p.publishedMakespan <= 1.25 * most).map(p => p.publishedMakespan);
  const least = Math.min(...points.map(p => p.bound)), high = Math.max(most, ...shown), space = (high - least) * 0.08 || high * 0.05 || 1, from = Math.max(0, least - space), to = high + space;
  const last = points[points.length - 1].memory, gap = points.length > 1 ? (last - points[0].memory) / (points.length - 1) : 1;
  const X = m => left + 14 + (m - points[0].memory) / (last - points[0].memory + 0.6 * gap) * (right - left - 14), Y = t => top + (to - t) / (to - from) * (floor - top), scale = unitFor(to);
  const marks = ticks(from, to, Math.max(2, (floor - top) / 60));
  let out = "";
  for (const t of marks) out += line(`M${left} ${px(Y(t))}H${right}`, style.line) + words(left - 8, Y(t) + 4, format(t * scale.times), style.dim, 12, "end");
  let free = -Infinity;
  for (const p of points) {
    out += line(`M${px(X(p.memory))} ${px(floor)}v5`, style.dim);
    const text = format(p.memory / PAGE.memoryScale, 4);
    if (X(p.memory) - widthOf(text, 12) / 2 > free) { out += words(X(p.memory), floor + 19, text, style.dim, 12, "middle"); free = X(p.memory) + widthOf(text, 12) / 2 + 6; }
  }
  out += words((left + right) / 2, floor + 39, PAGE.memoryTitle, style.dim, 13, "middle") + words(12, top - 12, "step time" + (scale.name ? "," + scale.name : ""), style.dim, 13);
  const steps = key => points.map((p, k) => `${k ? "V" : "M" + px(X(p.memory)) + " "}${px(Y(p[key]))}H${px(k + 1 < points.length ? X(points[k + 1].memory) : right)}`).join("");
  const back = [...points].reverse().map((p, k) => `V${px(Y(p.bound))}H${px(X(p.memory))}`).join("");
  out += `<path d="${steps("makespan")}${back}Z" fill="${style.band}"/>` + line(steps("bound"), style.dim, 2, ' stroke-dasharray="5 4"') + line(steps("makespan"), style.busy, 2.5);
  const taken = [];  // by labels
  let before = "", beside = "", under = -Infinity;
  for (const p of points) {
    const x = X(p.memory), other = p.publishedName !== "", shown = p.published < 0 ? p.plan : p.published;
    if (other) {
      const over = p.publishedMakespan > to, y = over ? top + 7 : Y(p.publishedMakespan), text = p.publishedName + " " + time(p.publishedMakespan);
      let inside = over ? `<path d="M${px(x)} ${px(y - 6)}l6 11h-12z" fill="${style.bg}" stroke="${style.pick}" stroke-width="1.5"/>` : `<path d="M${px(x - 10)} ${px(y)}l10 -10l10 10l-10 10z" fill="${style.bg}" stroke="${style.pick}" stroke-width="1.5"/>`;
      const width = widthOf(text, 12), edge = Math.min(over ? x + 12 : x - 6, w - 4 - width), level = over ? y + 4 : y - 16;
      if (text !== beside && !taken.some(t => edge < t[0] + t[2] + 8 && t[0] < edge + width + 8 && Math.abs(t[1] - level) < 15)) { inside += words(edge, level, text, style.pick, 12, "start", halo()); taken.push([edge, level, width]); beside = text; }
      out += mark(shown, "limit " + format(p.memory / PAGE.memoryScale) + ": published " + text, `<circle class="hit" cx="${px(x)}" cy="${px(y)}" r="13" fill="transparent"/>`, inside);
    }
    const text = time(p.makespan) + (p.placement ? " " + p.placement : ""), y = Y(p.makespan);
    let inside = `<circle cx="${px(x)}" cy="${px(y)}" r="6" fill="${style.busy}" stroke="${style.bg}" stroke-width="1.5"/>`;
    const start = Math.min(x + 5, w - 4 - widthOf(text, 12.5, "bold"));
    if (text !== before && start - 9 > under) { inside += words(start, y + 22, text, style.fg, 12.5, "start", BOLD + halo()); under = start + widthOf(text, 12.5, "bold"); before = text; }
    const name = "limit " + format(p.memory / PAGE.memoryScale) + ": planned " + text + ", at least " + time(p.bound) + (other ? ", published " + p.publishedName + " " + time(p.publishedMakespan) : ", no family fits");
    out += mark(p.plan + (p.published < 0 ? "" : "," + p.published), name, `<circle class="hit" cx="${px(x)}" cy="${px(y)}" r="14" fill="transparent"/>`, inside);
  }
  let x = left;
  const entry = (drawn, text) => { if (x + 30 + widthOf(text, 12) > w) return; out += `<g transform="translate(${px(x)} ${head + 14})">${drawn}</g>` + words(x + 29, head + 18, text, style.fg); x += 48 + widthOf(text, 12); };
  entry(line("M0 0H24", style.busy, 2.5) + `<circle cx="12" cy="0" r="5" fill="${style.busy}"/>`, "planned");
  if (points.some(p => p.publishedName !== "")) entry(`<path d="M6 0l6 -6l6 6l-6 6z" fill="${style.bg}" stroke="${style.pick}" stroke-width="1.5"/>`, "best published family");
  entry(line("M0 0H24", style.dim, 2, ' stroke-dasharray="5 4"'), "no schedule is shorter (proved)");
  if (picture) out += credit(w, Math.max(h, floor + 50));
  return {svg: drawing(w, Math.max(h, floor + 50), "Front: " + PAGE.headline, out, picture ? head : 0), height: Math.max(h, floor + 50)};
}
)html";

}  // namespace pipesched::detail
