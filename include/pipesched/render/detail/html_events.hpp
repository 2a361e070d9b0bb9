// SPDX-License-Identifier: MIT
#pragma once

// The page's script, last part: what the pointer, the keyboard and the buttons do.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_events_script = R"html(
let drag = null;
canvas.addEventListener("pointerdown", e => { drag = {x: e.offsetX, y: e.offsetY, from: view.from, vy: view.y, moved: false}; canvas.setPointerCapture(e.pointerId); canvas.focus(); });
canvas.addEventListener("pointermove", e => {
  if (drag) {
    if (Math.hypot(e.offsetX - drag.x, e.offsetY - drag.y) > 4) drag.moved = true;
    if (drag.moved) { view.from = drag.from - (e.offsetX - drag.x) / view.scale; view.y = drag.vy - (e.offsetY - drag.y); fitted = false; remember(); draw(); }
  }
  const c = drag && drag.moved ? null : cellAt(e.offsetX, e.offsetY), tip = $("tip");
  tip.style.display = c ? "block" : "none";
  if (!c) return;
  tip.textContent = describe(c);
  tip.style.left = Math.max(0, Math.min(e.offsetX + 14, size.w - tip.offsetWidth - 6)) + "px";
  tip.style.top = (e.offsetY + 18 + tip.offsetHeight > size.h ? Math.max(0, e.offsetY - tip.offsetHeight - 10) : e.offsetY + 18) + "px";
});
canvas.addEventListener("pointerup", e => { if (drag && !drag.moved) choose(cellAt(e.offsetX, e.offsetY)); drag = null; });
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { $("tip").style.display = "none"; });
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  if (e.ctrlKey || e.metaKey) return zoom(Math.exp(-e.deltaY / 300), e.offsetX, e.offsetY);
  move((e.shiftKey ? e.deltaY : e.deltaX) / view.scale, e.shiftKey ? 0 : e.deltaY);
}, {passive: false});

const openMark = m => open(m.dataset.open.split(",").map(Number));
chart.addEventListener("click", e => { const m = e.target.closest(".mark"); if (m) openMark(m); });

function toggle(id) {
  if (id === "path") showPath = !showPath; else showMemory = !showMemory;
  $("path").setAttribute("aria-pressed", showPath); $("memory").setAttribute("aria-pressed", showMemory); remember(); draw();
}
function theme(name, askedFor) { document.documentElement.dataset.theme = name; if (askedFor) document.documentElement.dataset.asked = "yes"; readStyle(); draw(); }
function otherTheme() { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true); remember(); }
const help = () => $("help").classList.toggle("open");
function step(dx, dy) {
  if (!chosen) return choose({n: shown[0], r: 0, i: Math.min(firstAfter(DATA[shown[0]].rows[0], view.from), DATA[shown[0]].rows[0].n - 1)});
  let {n, r, i} = chosen;
  const row = DATA[n].rows[r], middle = (row.t[2 * i] + row.t[2 * i + 1]) / 2, at = shown.indexOf(n);
  if (dx) i = Math.min(Math.max(i + dx, 0), row.n - 1);
  else {
    r += dy;
    if (r < 0 && at > 0) r = DATA[n = shown[at - 1]].rows.length - 1; else if (r >= DATA[n].rows.length && at + 1 < shown.length) { n = shown[at + 1]; r = 0; }
    r = Math.min(Math.max(r, 0), DATA[n].rows.length - 1);
    i = Math.max(0, Math.min(firstAfter(DATA[n].rows[r], middle), DATA[n].rows[r].n - 1));
  }
  choose({n, r, i}); reveal(chosen);
}
// Goes to the stall after the one that is chosen, the longest first.
function nextStall() {
  const n = chosen ? chosen.n : shown[0], stalls = stallsOf(DATA[n]);
  if (!stalls.length) { $("chosen").textContent = "This schedule has no stalls."; return; }
  const at = chosen ? stalls.findIndex(w => w.r === chosen.r && w.i === chosen.i) : -1, next = stalls[(at + 1) % stalls.length];
  choose({n, r: next.r, i: next.i}); reveal(chosen);
}
function other(by) { open([(shown[0] + by + DATA.length) % DATA.length]); }
function back() { if (home !== "schedule" || DATA.length > 1) go(home === "front" ? "front" : "overview"); }

const scheduleKeys = {
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": fit, "[": () => other(-1), "]": () => other(1),
  c: () => toggle("path"), m: () => toggle("memory"), s: nextStall, Escape: () => { if (chosen) choose(null); else back(); },
  ArrowLeft: far => far ? move(-(size.w - left) / 6 / view.scale, 0) : step(-1, 0), ArrowRight: far => far ? move((size.w - left) / 6 / view.scale, 0) : step(1, 0),
  ArrowUp: far => far ? move(0, -80) : step(0, -1), ArrowDown: far => far ? move(0, 80) : step(0, 1)};
function amongMarks(by) {
  const marks = [...chart.querySelectorAll(".mark")], at = marks.indexOf(document.activeElement), next = marks[Math.min(Math.max(at < 0 ? 0 : at + by, 0), marks.length - 1)];
  if (!next) return;
  marks.forEach(m => { m.tabIndex = m === next ? 0 : -1; }); next.focus();
}
const chartKeys = {
  ArrowDown: () => amongMarks(1), ArrowUp: () => amongMarks(-1), ArrowRight: () => amongMarks(1), ArrowLeft: () => amongMarks(-1),
  Home: () => amongMarks(-1e9), End: () => amongMarks(1e9)};
const anyKeys = {t: otherTheme, "?": help, o: () => go("overview"), f: () => go("front")};
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("select")) return;
  if (e.key === "Escape" && $("help").classList.contains("open")) return help();
  const onMark = e.target.closest && e.target.closest(".mark");
  if ((e.key === "Enter" || e.key === " ") && onMark) { e.preventDefault(); return openMark(onMark); }
  const action = anyKeys[e.key] || (place === "schedule" ? scheduleKeys : chartKeys)[e.key];
  if (action) { $("tip").style.display = "none"; action(e.shiftKey); e.preventDefault(); }
});

$("fit").onclick = fit; $("theme").onclick = otherTheme; $("helpbutton").onclick = help; $("stall").onclick = nextStall;
$("zoomin").onclick = () => zoom(1.5); $("zoomout").onclick = () => zoom(1 / 1.5);
$("path").onclick = () => toggle("path"); $("memory").onclick = () => toggle("memory");
$("front").onclick = () => go("front"); $("overview").onclick = () => go("overview");
$("svg").onclick = saveSvg; $("png").onclick = savePng;
$("shown").onchange = $("beside").onchange = () => {
  const n = +$("shown").value, beside = $("beside").value;
  open(beside === "all" ? DATA.map((_, k) => k) : beside === "" || +beside === n ? [n] : [n, +beside]);
};

{ // Lists and buttons that never change.
  const options = DATA.map((_, k) => `<option value="${k}">${escaped(listed(k))}</option>`).join("");
  $("shown").innerHTML = options; $("beside").innerHTML = '<option value="">nothing</option>' + options + (DATA.length > 2 ? '<option value="all">all</option>' : "");
  if (DATA.length < 2) for (const id of ["overview", "pick", "with"]) $(id).style.display = "none";
  if (!PAGE.front.length) $("front").style.display = "none";
  const notes = [...$("notes").children].map(n => n.textContent), unit = SECONDS || !notes.length ? "" : "times in the unit of the costs";
  $("facts").textContent = [notes[0], unit].filter(Boolean).join("; ");
  if (notes.length < 2) $("more").style.display = "none";
}
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light", false);
readAddress();
addEventListener("popstate", readAddress);
const resized = new ResizeObserver(draw);
for (const e of [document.body, chart, $("stage")]) resized.observe(e);
</script>
</body>
</html>
)html";

}  // namespace pipesched::detail
