"""Style sheet of all reports, for light and dark screens, phones and print."""

STYLE = """
:root { color-scheme: light dark; --ink: #18212d; --soft: #566273; --hair: #dfe4ea; --back: #f4f6f8; --card: #fff;
  --tile: #f4f6f8; --accent: #2456c8; --c0: #2456c8; --c1: #c2410c; --c2: #0d7a5f; --c3: #9333ea; --c4: #a16207;
  --c5: #be185d }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9ba8b8; --hair: #2c3542;
  --back: #0f141a; --card: #171d26; --tile: #1f2731; --accent: #8ab0ff; --c0: #8ab0ff; --c1: #ff9f6b; --c2: #5fd3ad;
  --c3: #cda2ff; --c4: #e8c468; --c5: #ff8fb8 } }
* { box-sizing: border-box; margin: 0 }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: var(--ink);
  background: var(--back); max-width: 1040px; margin: auto; padding: 48px 20px 64px; -webkit-text-size-adjust: 100% }
header { padding: 0 4px 28px } header p, .soft { color: var(--soft) } header p { font-size: 1.05rem }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; font-weight: 680; margin-bottom: 6px }
h2 { font-size: 1.15rem; letter-spacing: -.01em; font-weight: 650 }
section { background: var(--card); border: 1px solid var(--hair); border-radius: 14px; padding: 24px 28px 28px;
  margin-bottom: 20px }
section > * + * { margin-top: 18px } section > p { max-width: 70ch }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 12px }
.facts div { background: var(--tile); border-radius: 10px; padding: 12px 13px 13px }
.facts dt { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere }
.facts dd { font-size: 1.2rem; line-height: 1.3; font-weight: 620; letter-spacing: -.01em; overflow-wrap: anywhere }
.pairs { columns: 2 340px; column-gap: 36px; font-size: .85rem; font-variant-numeric: tabular-nums }
.pairs div { display: flex; justify-content: space-between; gap: 18px; padding: 4px 8px; break-inside: avoid;
  border-bottom: 1px solid var(--hair) } .pairs dt { color: var(--soft); flex: none; max-width: 55% }
.pairs dd { text-align: right; min-width: 0 } .pairs dt, .pairs dd { overflow-wrap: anywhere }
.pairs small { display: block; color: var(--soft) } .pairs .marked { background: var(--tile); font-weight: 620;
  box-shadow: inset 3px 0 var(--accent) } .marked small { font-weight: 400 }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 22px 28px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th { color: var(--soft); font-size: .8rem; font-weight: 550; text-align: left; vertical-align: bottom }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--hair) } th:first-child, td:first-child { padding-left: 0 }
th:last-child, td:last-child { padding-right: 0 } tbody tr:last-child td { border-bottom: 0 }
.number { text-align: right; white-space: nowrap }
.name { min-width: 112px }
.swatch { display: inline-block; width: 13px; height: 13px; border-radius: 4px; margin-right: 9px; vertical-align: -1px;
  box-shadow: inset 0 0 0 1px #8886 }
.bar { display: inline-block; width: 90px; height: 6px; border-radius: 3px; background: var(--hair); margin-right: 12px;
  vertical-align: 2px; overflow: hidden } .bar i { display: block; height: 100%; background: var(--accent) }
.confusion table { width: auto; font-size: .72rem }
.confusion th, .confusion td { border: 0; padding: 0 } .confusion th { color: var(--ink); font-size: .75rem }
.confusion tbody th { position: sticky; left: 0; background: var(--card); padding-right: 10px; max-width: 140px;
  text-align: right; vertical-align: middle; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 150px; margin: 0 auto 7px;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; display: block; line-height: 1.2 }
.confusion tbody td { min-width: 25px; height: 25px; text-align: center; border: 1px solid var(--card);
  background: var(--tile) linear-gradient(rgb(36 86 200 / var(--share, 0)) 0 100%) }
.confusion .own { outline: 1px solid var(--soft); outline-offset: -2px } .confusion .strong { color: #fff }
.dense tbody td { min-width: 13px; height: 13px } .dense table { line-height: 1 } .dense th { font-size: .65rem }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .85rem }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 18px; font-size: .9rem }
.chart b { font-weight: 600 } .chart .swatch { width: 16px; height: 3px; vertical-align: 4px; box-shadow: none }
.plot { position: relative; height: 260px; margin: 14px 14px 26px 52px }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible }
.plot path, .plot polyline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round;
  stroke-linecap: round }
.grid { stroke: var(--hair) } .faint { opacity: .3 }
.line { stroke-width: 1.75px } .dot { stroke-width: 6px }
.x, .y, .x-label { color: var(--soft); font-size: .75rem; font-variant-numeric: tabular-nums;
  white-space: nowrap }
.x { position: absolute; top: calc(100% + 6px); transform: translateX(-50%) } .x-label { text-align: right }
.y { position: absolute; right: calc(100% + 10px); transform: translateY(50%) }
.sample + .sample { margin-top: 24px } .sample > p { font-size: .9rem; font-weight: 550; margin-bottom: 8px }
.images { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 12px }
.images figure { max-width: 640px } .images img { display: block; width: 100%; height: auto; border-radius: 8px }
.images figcaption { color: var(--soft); font-size: .8rem; margin-top: 5px }
@media (max-width: 560px) { body { padding: 28px 12px 40px } section { padding: 18px 16px 20px }
  h1 { font-size: 1.6rem } .facts { grid-template-columns: 1fr 1fr } .bar { width: 22px; margin-right: 5px }
  th, td { padding: 7px 6px }
  .plot { height: 210px; margin-left: 42px } }
@media print { * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  body { background: none; padding: 0; font-size: 11pt }
  section { border: 0; padding: 0 0 18px } h2 { break-after: avoid }
  .chart, .sample, .facts div, tr { break-inside: avoid } }
"""
