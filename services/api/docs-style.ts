/** How the page of the API looks, on a phone and on a wide screen, by day and by night. */
export const docsStyle = `
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --paper: #f6f7f9; --card: #fff; --link: #1257c0;
  --get: #0b6e4f; --post: #1257c0; --put: #8a5300; --patch: #6b3fa0; --delete: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa7b7; --line: #2d3743; --paper: #11161c; --card: #19212a; --link: #7db3ff;
    --get: #5fd3a6; --post: #7db3ff; --put: #f0b35a; --patch: #c3a1f5; --delete: #ff8f87; }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; display: grid; grid-template-columns: 19rem minmax(0, 1fr); background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px; }
code, .type, .method, .code, .status { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .875em; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.25rem 1rem 2rem; border-right: 1px solid var(--line);
  background: var(--card); font-size: .8125rem; }
nav a { display: flex; align-items: baseline; gap: .5rem; padding: .15rem .25rem; color: var(--ink); overflow-wrap: anywhere; }
nav .home { font-size: 1.0625rem; font-weight: 700; }
nav .group { margin-top: 1rem; font-weight: 700; }
nav .method { flex: 0 0 3.4rem; font-size: .6875rem; }
small { color: var(--soft); font-weight: 400; font-size: .6em; white-space: nowrap; }
nav small { font-size: .8em; }
main { padding: 2rem clamp(1rem, 4vw, 3rem) 6rem; max-width: 76rem; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; }
.lead { font-size: 1.125rem; color: var(--soft); margin: .25rem 0 1.5rem; }
main > p { max-width: 46rem; }
h2 { margin: 3rem 0 1rem; font-size: 1.375rem; }
article { margin: 0 0 1rem; padding: 1rem 1.25rem; border: 1px solid var(--line); border-radius: .625rem; background: var(--card); }
article:target { border-color: var(--link); }
article > header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; justify-content: space-between; }
article > p { margin: .25rem 0 .75rem; }
h3 { margin: 0; font-size: 1.0625rem; overflow-wrap: anywhere; }
h3 code { font-size: 1em; }
h4 { margin: 0 0 .25rem; font-size: .75rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); }
var { font-style: normal; color: var(--soft); }
.method { font-weight: 700; }
h3 .method { margin-right: .35rem; }
.get { color: var(--get); } .post { color: var(--post); } .put { color: var(--put); } .patch { color: var(--patch); } .delete { color: var(--delete); }
.who { font-size: .8125rem; padding: .05rem .6rem; border: 1px solid var(--line); border-radius: 1rem; color: var(--soft); }
.who.open { color: var(--get); border-color: currentColor; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem 2rem; }
.columns section { min-width: 0; }
.columns p { margin: 0; }
.none { color: var(--soft); }
.status { color: var(--get); }
.scroll { overflow-x: auto; }
table { width: 100%; min-width: 18rem; border-collapse: collapse; font-size: .875rem; table-layout: fixed; }
th, td { padding: .3rem .75rem .3rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; font-weight: 400; }
tr:first-child > * { border-top: 0; }
tr:target > * { background: color-mix(in srgb, var(--link) 12%, transparent); }
tbody th { width: 34%; overflow-wrap: anywhere; }
.type { font-size: .8125rem; width: 26%; overflow-wrap: break-word; }
.errors td { width: 4rem; }
.type i { color: var(--soft); }
.notes, .errors .notes { color: var(--soft); width: auto; }
.optional, .place { font-size: .75rem; color: var(--soft); white-space: nowrap; }
.place { padding: 0 .35rem; border: 1px solid var(--line); border-radius: .25rem; }
.refusals { margin-top: .75rem; }
.refusals h4 { display: inline; margin-right: .5rem; }
.code { display: inline-block; padding: 0 .4rem; border-radius: .25rem; background: var(--paper); font-size: .75rem; }
@media (max-width: 60rem) {
  body { display: block; }
  nav { position: static; height: auto; border-right: 0; border-bottom: 1px solid var(--line); }
  nav a:not(.home, .group) { display: none; }
  nav .group { display: inline-flex; margin: .25rem .75rem 0 0; }
}
@media (max-width: 36rem) {
  table { min-width: 0; }
  table, tbody { display: block; }
  tr { display: flex; flex-wrap: wrap; gap: 0 .75rem; padding: .3rem 0; border-top: 1px solid var(--line); }
  tr:first-child { border-top: 0; }
  th, td, tbody th, .type, .errors td { width: auto; padding: 0; border: 0; }
  .notes, .errors .notes { flex-basis: 100%; }
  .notes:empty { display: none; }
}
@media print { nav { display: none; } body { display: block; } article { break-inside: avoid; } }
`;
