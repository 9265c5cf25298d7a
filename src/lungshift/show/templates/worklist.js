"use strict";
// Decisions are kept by the browser under the audit's own key, and leave it only as a file that the reader saves.
const audit = document.body.dataset.audit, format = Number(document.body.dataset.format);
const key = "lungshift-audit-" + audit;
const articles = Array.from(document.querySelectorAll("article"));
const known = new Set(articles.map((one) => one.dataset.id));
const words = ["accept", "reject", "unsure"];
let decisions = {}, undone = [], at = 0;

function kept() {
  try { return JSON.parse(localStorage.getItem(key)) || {}; } catch { return {}; }
}
function keep() {
  try { localStorage.setItem(key, JSON.stringify(decisions)); } catch { /* a browser that keeps nothing for files */ }
}
function show() {
  for (const one of articles) {
    const decided = decisions[one.dataset.id] || "";
    one.dataset.decision = decided;
    for (const button of one.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.decide === decided));
  }
  const count = articles.filter((one) => decisions[one.dataset.id]).length;
  document.getElementById("progress").textContent = count + " of " + articles.length + " decided";
}
function go(place) {
  if (!articles.length) return;
  at = Math.min(Math.max(place, 0), articles.length - 1);
  articles[at].focus({ preventScroll: true });
  articles[at].scrollIntoView({ block: "start" });
}
function decide(id, word) {
  undone.push([id, decisions[id]]);
  if (decisions[id] === word) delete decisions[id]; else decisions[id] = word;
  keep();
  show();
}
function undo() {
  const last = undone.pop();
  if (!last) return;
  if (last[1]) decisions[last[0]] = last[1]; else delete decisions[last[0]];
  keep();
  show();
  go(articles.findIndex((one) => one.dataset.id === last[0]));
}
function save() {
  const text = JSON.stringify({ format: format, audit: audit, decisions: decisions }, null, 2) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function take(text) {
  const read = JSON.parse(text);
  if (read.format !== format) throw new Error("another format");
  for (const [id, word] of Object.entries(read.decisions)) if (known.has(id) && words.includes(word)) decisions[id] = word;
  keep();
  show();
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const acts = { a: "accept", r: "reject", u: "unsure" };
  const pressed = event.key.toLowerCase();
  if (pressed in acts && articles.length) { decide(articles[at].dataset.id, acts[pressed]); go(at + 1); }
  else if (pressed === "j" || event.key === "ArrowRight") go(at + 1);
  else if (pressed === "k" || event.key === "ArrowLeft") go(at - 1);
  else if (pressed === "z") undo();
  else return;
  event.preventDefault();
});
articles.forEach((one, place) => {
  one.addEventListener("click", (event) => {
    at = place;
    const word = event.target.dataset && event.target.dataset.decide;
    if (word) decide(one.dataset.id, word);
  });
});
document.getElementById("save").addEventListener("click", save);
document.getElementById("load").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) file.text().then(take).catch(() => { document.getElementById("progress").textContent = "that file holds no decisions of this page"; });
});
decisions = Object.fromEntries(Object.entries(kept()).filter(([id]) => known.has(id)));
show();
