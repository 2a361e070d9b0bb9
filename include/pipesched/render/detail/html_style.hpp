// SPDX-License-Identifier: MIT
#pragma once

// The page's style and its elements. Colours are variables, so that pictures of a view take them as they are.

#include <string_view>

namespace pipesched::detail {

inline constexpr std::string_view html_style_text = R"html(<style>
:root { --bg:#ffffff; --fg:#1b1f24; --dim:#57606a; --line:#d7dce2; --hatch:#aab4c0; --frame:#000000; --pick:#c30018; --path:#b3165a; --card:#f6f8fa;
  --hover:#eef3f9; --busy:#2a65a6; --idle:#c9d6e4; --plan:#a34a00; --band:#dfe8f4; --rest:#eef1f5;
  --F:#fbbf5b; --B:#74b257; --I:#c4e6a6; --W:#3f78b5; --R:#cda5dc; --Ft:#000000; --Bt:#000000; --It:#000000; --Wt:#ffffff; --Rt:#000000; --mem:#c3b0dd; }
:root[data-theme=dark] { --bg:#15181c; --fg:#e8eaed; --dim:#a3acb6; --line:#363c44; --hatch:#525c68; --frame:#ffffff; --pick:#ff7b7b; --path:#ff75ae; --card:#22272d;
  --hover:#1f2730; --busy:#66a6e6; --idle:#364a60; --plan:#f0a04b; --band:#22303f; --rest:#22272d;
  --F:#e0a03c; --B:#5c9a42; --I:#a9d488; --W:#3a74b4; --R:#b98fcd; --Wt:#ffffff; --mem:#5f4d80; }
* { box-sizing:border-box; }
html, body { margin:0; height:100%; background:var(--bg); color:var(--fg); font:13px/1.4 system-ui, sans-serif; }
body { display:flex; flex-direction:column; overflow:hidden; }
header { padding:8px 12px 6px; border-bottom:1px solid var(--line); }
h1 { font-size:clamp(15px, 1.75vw, 23px); line-height:1.25; margin:0; text-wrap:balance; }
h1 span { white-space:nowrap; }
#facts { margin:1px 0 5px; color:var(--dim); }
nav { display:flex; flex-wrap:wrap; gap:5px; align-items:center; }
nav .gap { flex:1; }
button, select { font:inherit; color:inherit; background:var(--card); border:1px solid var(--dim); border-radius:4px; padding:2px 7px; cursor:pointer; }
select { max-width:10em; padding:2px; }
:focus-visible { outline:2px solid var(--busy); outline-offset:1px; }
button[aria-pressed=true], button[aria-current=page] { background:var(--fg); color:var(--bg); }
body:not([data-view=schedule]) .schedule { display:none !important; }
body[data-view=schedule] #sheet { display:none; }
.key { display:inline-block; width:15px; height:11px; border:1px solid var(--frame); vertical-align:-1px; margin:0 3px 0 0; }
#legend { display:flex; flex-wrap:wrap; gap:0 11px; margin-top:4px; }
#legend span { white-space:nowrap; }
#legend #unit { white-space:normal; color:var(--dim); }
#sheet { flex:1; min-height:0; overflow:auto; display:flex; flex-direction:column; }
#chart { flex:1; min-height:0; overflow:hidden auto; }
#chart svg { display:block; }
.mark { cursor:pointer; outline:none; }
.mark .hit { fill:transparent; }
.mark:hover .hit, .mark:focus-visible .hit { fill:var(--hover); }
.mark:focus-visible .hit { stroke:var(--busy); stroke-width:2; }
#more { padding:3px 12px; border-top:1px solid var(--line); color:var(--dim); }
#notes { margin:0; padding:0 0 4px; list-style:none; max-height:30vh; overflow:auto; }
#stage { flex:1; position:relative; min-height:0; }
canvas { position:absolute; inset:0; width:100%; height:100%; display:block; outline-offset:-2px; }
#tip { position:absolute; pointer-events:none; display:none; background:var(--card); border:1px solid var(--dim); border-radius:4px; padding:4px 8px; max-width:420px; white-space:pre-line; z-index:2; }
#chosen { padding:4px 12px; border-top:1px solid var(--line); min-height:2em; max-height:5.6em; overflow:auto; }
#help { display:none; position:fixed; right:12px; top:12px; background:var(--card); border:1px solid var(--dim); border-radius:6px; padding:10px 14px; margin:0; z-index:3; grid-template-columns:auto auto; gap:2px 16px; max-width:min(600px,100% - 24px); max-height:calc(100% - 24px); overflow:auto; }
#help.open { display:grid; }
#help dd { margin:0; }
@media (max-width:900px) { body[data-view=schedule] #facts { display:none; } }
</style>
)html";

// Before the headline, between it and the notes, and after them.
inline constexpr std::string_view html_before_headline = R"html(</head>
<body data-view="overview">
<header>
<h1 id="headline">)html";

inline constexpr std::string_view html_before_notes = R"html(</h1>
<p id="facts"></p>
<nav aria-label="views and tools">
<button id="front" title="f">Front</button><button id="overview" title="o">Overview</button>
<label class="schedule" id="pick">schedule <select id="shown"></select></label>
<label class="schedule" id="with">beside <select id="beside"></select></label>
<span class="schedule"><button id="fit" title="0">Fit</button> <button id="zoomin" title="+" aria-label="zoom in">+</button> <button id="zoomout" title="-" aria-label="zoom out">&minus;</button></span>
<button class="schedule" id="path" aria-pressed="false" title="c">Critical path</button>
<button class="schedule" id="memory" aria-pressed="false" title="m">Memory</button>
<button class="schedule" id="stall" title="s">Next stall</button>
<span class="gap"></span>
<span>picture <button id="svg" aria-label="save a picture of this view as SVG">SVG</button> <button id="png" aria-label="save a picture of this view as PNG">PNG</button></span>
<button id="theme" title="t" aria-label="light or dark">Theme</button><button id="helpbutton" title="?">Keys</button>
</nav>
<div id="legend" class="schedule"><span id="keyF"><i class="key" style="background:var(--F)"></i>forward</span> <span id="keyB"><i class="key" style="background:var(--B)"></i>backward</span> <span id="keyI"><i class="key" style="background:var(--I)"></i>backward for inputs</span> <span id="keyW"><i class="key" style="background:var(--W)"></i>for weights</span> <span id="keyR"><i class="key" style="background:var(--R)"></i>recompute</span> <span id="pairs"><i class="key" style="background:linear-gradient(90deg,var(--F) 40%,var(--B) 40%);border-width:2px"></i>overlapped pair</span> <span><i class="key" style="background:repeating-linear-gradient(135deg,var(--rest) 0 3px,var(--hatch) 3px 4px);border-color:var(--hatch)"></i>idle</span> <span id="bar"><i class="key" style="border:0;height:6px;border-bottom:2px solid var(--frame);vertical-align:2px"></i><b id="later" style="font-weight:normal">a later stage of the rank</b></span> <span title="the number in a cell"><i class="key" style="border:0;text-align:center;font:12px/12px system-ui,sans-serif;font-style:normal">7</i>micro-batch</span> <span id="unit">1 activation: a micro-batch through all stages of a rank</span></div>
</header>
<main id="sheet"><div id="chart"></div><details id="more"><summary>costs, and what is left out</summary><ul id="notes">)html";

inline constexpr std::string_view html_after_notes = R"html(</ul></details></main>
<main id="stage" class="schedule"><canvas id="canvas" tabindex="0" role="application" aria-label="Timeline. Arrow keys choose a cell, s the next stall, plus and minus zoom, question mark lists all keys."></canvas><div id="tip" role="tooltip"></div></main>
<dl id="help"><dt>arrows, Enter</dt><dd>overview and front: move, and open a schedule</dd>
<dt>arrows</dt><dd>schedule: choose the next cell to the left, right, above or below</dd>
<dt>+ &minus;</dt><dd>zoom in, out (also ctrl + wheel)</dd>
<dt>shift + arrows, drag, wheel</dt><dd>move</dd>
<dt>0</dt><dd>fit to the window</dd>
<dt>[ ]</dt><dd>the schedule before, after</dd>
<dt>c</dt><dd>critical path of each schedule</dd>
<dt>m</dt><dd>live activations per rank; 1 is one micro-batch through the rank's whole share. Bytes where the costs know them, and a line at what the rank has for them</dd>
<dt>s</dt><dd>the next stall, the longest first</dd>
<dt>o, f</dt><dd>overview; front, if there is one</dd>
<dt>t</dt><dd>light or dark</dd>
<dt>Esc</dt><dd>choose nothing, then back to where the schedule was opened</dd>
<dt>?</dt><dd>this list</dd></dl>
<div id="chosen" class="schedule" aria-live="polite"></div>
<script>
"use strict";
const PAGE = )html";

}  // namespace pipesched::detail
