// SPDX-License-Identifier: GPL-2.0-only
// How the report looks: in light and in dark, on paper, on a narrow screen. Colours of the areas differ in lightness as
// well, and every one of them is told in words too.
#pragma once

namespace crit {

constexpr const char* report_style = R"(
:root {
  color-scheme: light dark;
  --ground: #fdfdfc; --raised: #f2f3f1; --line: #d4d7d2; --ink: #1c2420; --soft: #55605a; --link: #0a5c8f;
  --heap: #b3541e; --stack: #8a3ffc; --anonymous: #d9902f; --file: #2f6fb0; --shared: #1d7f5f; --kernel: #767f7a;
  --empty: #e4e6e2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #151917; --raised: #1e2421; --line: #39423d; --ink: #e6ebe8; --soft: #a3aea8; --link: #7cc0ee;
    --heap: #f08a4b; --stack: #b98cff; --anonymous: #f2c063; --file: #6ea8e8; --shared: #4fc79c; --kernel: #98a39d;
    --empty: #2c332f;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--ground); padding: .5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { max-width: 45rem; } .soft { color: var(--soft); }
code, td.path, td.address, .mono { font-family: ui-monospace, monospace; font-size: .875em; overflow-wrap: anywhere; }
dl.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
dl.numbers div { background: var(--raised); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
dl.numbers dt { color: var(--soft); font-size: .85rem; }
dl.numbers dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; } td.address { white-space: nowrap; }
tbody th { font-weight: normal; }
.tree td:first-child { white-space: nowrap; }
.bar { display: block; width: 100%; height: 1.9rem; background: var(--empty); border-radius: .2rem; }
.bar.thin { height: .8rem; margin-top: 2px; }
td .bar { height: .9rem; min-width: 6rem; margin-top: .3rem; }
.heap { fill: var(--heap); background: var(--heap); } .stack { fill: var(--stack); background: var(--stack); }
.anonymous { fill: var(--anonymous); background: var(--anonymous); } .file { fill: var(--file); background: var(--file); }
.shared { fill: var(--shared); background: var(--shared); } .kernel { fill: var(--kernel); background: var(--kernel); }
.plain { fill: var(--file); }
ul.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .9rem; }
ul.legend span { display: inline-block; width: .9rem; height: .9rem; border-radius: .15rem; margin-right: .4rem;
  vertical-align: -.1rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
@media print { body { max-width: none; } details::details-content { display: block; } }
)";

}  // namespace crit
