// node page_dom.js URL: runs the live page's own script against a coordinator, with as much of a document as it uses, until the page has rows; prints what a
// reader would see as one JSON object.
"use strict";
const base = new URL(process.argv[2]);

class Element {
  constructor(name) { Object.assign(this, {name, children: [], attributes: {}, textContent: "", className: "", hidden: false, namespaceURI: "svg"}); }
  append(...e) { this.children.push(...e); }
  replaceChildren(...e) { this.children = e; }
  setAttribute(k, v) { this.attributes[k] = v; }
  all(name) { return this.children.flatMap(c => (c.name === name ? [c] : []).concat(c.all(name))); }
}

(async () => {
  const html = await (await fetch(base)).text(), ids = {};
  for (const [, id] of html.matchAll(/\bid="([\w-]+)"/g)) ids[id] = new Element(id);
  globalThis.document = {hidden: false, createElement: n => new Element(n), createElementNS: (ns, n) => new Element(n), addEventListener() {},
                         getElementById: id => { if (!ids[id]) throw new Error("the page has no element " + id); return ids[id]; }};
  globalThis.location = {href: base.href, search: base.search, hash: base.hash};
  globalThis.history = {replaceState() {}};
  let tick;
  globalThis.setInterval = f => { tick = f; };
  (0, eval)(html.match(/<script>([\s\S]*)<\/script>/)[1]);
  const end = Date.now() + 15000;
  while (Date.now() < end && !(ids.workers.children.length && (ids.members.children.length || ids.one.hidden)) && ids.state.className !== "bad") {
    await new Promise(r => setTimeout(r, 50));
    await tick();
  }
  const table = e => e.children.map(tr => tr.children.map(td => String(td.textContent)));
  const chart = e => ({dots: e.all("circle").filter(c => c.attributes.class === "dot").length, front: e.all("circle").filter(c => c.attributes.class === "front").length,
                       lines: e.all("polyline").map(l => l.attributes.points.split(" ").length)});
  console.log(JSON.stringify({state: ids.state.textContent, bad: ids.state.className === "bad", title: ids.title.textContent, searches: table(ids.searches),
                              workers: table(ids.workers), members: table(ids.members), loss: chart(ids.loss), evals: chart(ids.evals), front: chart(ids.front)}));
  process.exit(0);
})().catch(e => { console.error(e); process.exit(1); });
