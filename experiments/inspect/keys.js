// Pointer and keys: the token whose numbers are shown, jumps, and the start of the page.

// The tokens shown, from the largest to the smallest of the quantity that colours them.
function largestFirst() {
  order ??= shown.flatMap((a) => a.tokens.map((_, i) => [a, i, sizeOf(quantity, a, i)]))
    .filter(([, , size]) => Number.isFinite(size)).sort((x, y) => y[2] - x[2]);
  return order;
}
function jump(by) {
  const count = largestFirst().length;
  if (!count) return;
  rank = stepped(rank, by, count);
  const [a, i] = order[rank];
  focusToken(a, i);
  nameRank();
}
// The index `by` further in a circle of `count`; the first or the last one from -1.
function stepped(index, by, count) {
  if (index < 0) return by > 0 ? 0 : count - 1;
  return (index + by + count) % count;
}
function nameRank() {
  const written = (n) => n.toLocaleString("en");
  const which = rank < 0 ? "" : `${written(rank + 1)} of ${written(order.length)}`;
  $("rank").replaceChildren(element("span", { className: "wide", textContent: "largest " }),
    element("span", { textContent: `${quantity.size ?? quantity.name} ${which}`.trim() }));
}

function focusToken(a, i, block = "center") {
  const span = a?.spans[i];
  if (!span?.isConnected) return;
  span.focus({ preventScroll: true });
  scrollToToken(span, block, 5);
}
// Cards that had an estimated height until they came into view move it, so it takes some frames.
function scrollToToken(span, block, frames) {
  span.scrollIntoView({ block });
  if (pointed) place();
  if (frames) requestAnimationFrame(() => scrollToToken(span, block, frames - 1));
}
// The tokens before and after a token; up and down, the first token of the next answers.
function neighbour({ answer: a, i }, key) {
  if (key === "ArrowLeft") return [a, i - 1];
  if (key === "ArrowRight") return [a, i + 1];
  const at = shown.indexOf(a) + { ArrowUp: -1, ArrowDown: 1 }[key];
  return [shown[at], 0];
}
// The next place in the page's order that the search has found.
function nextMatch(by) {
  const places = shown.flatMap((a) => a.matches.map((i) => [a, i]));
  if (!places.length) return;
  const at = places.findIndex(([a, i]) => `${a.id}-${i}` === state.token);
  const [a, i] = places[stepped(at, by, places.length)];
  focusToken(a, i);
  $("find").focus({ preventScroll: true }); // so that Enter goes on
  show(a.spans[i]);
}

// A click or a key chooses a token, which the address then names; hovering only shows another one.
function choose(token) {
  state.token = `${token.of.answer.id}-${token.of.i}`;
  remember();
  show(token);
}
function forget() {
  state.token = "";
  if (document.activeElement?.of) document.activeElement.blur();
  hide();
  remember();
}
const focused = () => (document.activeElement?.of?.answer ? document.activeElement : null);
const showFocused = () => (focused() ? show(focused()) : hide());

function tokenUnder(event) {
  if (event.target.of?.answer) return [event.target];
  const chart = event.target.closest?.(".chart");
  if (!chart) return [];
  const area = chart.firstElementChild.getBoundingClientRect(), { of: a } = chart;
  const i = Math.floor((event.clientX - area.left) / area.width * a.tokens.length);
  return [a.spans[Math.min(a.spans.length - 1, Math.max(0, i))], a.cursor];
}
function listenToPointer() {
  const point = (event) => {
    const [token, node] = tokenUnder(event);
    if (token) show(token, node);
    else if (event.pointerType === "mouse") showFocused();
  };
  main.addEventListener("pointerover", point);
  main.addEventListener("pointermove", (event) => {
    if (event.target.closest(".chart")) point(event);
  });
  main.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") showFocused();
  });
  main.addEventListener("click", (event) => {
    const [token, node] = tokenUnder(event);
    if (!token) return;
    token.focus({ preventScroll: true });
    if (node) show(token, node);
  });
  main.addEventListener("focusin", (event) => { if (event.target.of) choose(event.target); });
  main.addEventListener("focusout", hide);
  tip.addEventListener("mousedown", (event) => event.preventDefault()); // the token keeps the focus
  addEventListener("scroll", () => pointed && place(), { passive: true });
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const { key, target } = event;
    if (target === $("find")) {
      if (key === "Enter") nextMatch(event.shiftKey ? -1 : 1);
      if (key === "Escape") target.blur();
      return;
    }
    if (key === "Escape") forget();
    quantities[Number(key) - 1]?.input.click();
    if (key === "n" || key === "p") jump(key === "n" ? 1 : -1);
    if (key === "/") { event.preventDefault(); $("find").select(); }
    if (key.startsWith("Arrow") && target.of) {
      event.preventDefault();
      focusToken(...neighbour(target.of, key), "nearest");
    }
  });
}

function listenToControls() {
  for (const id of ["run", "kind", "step", "reward", "problem", "sort"]) {
    $(id).addEventListener("change", (event) => { state[id] = event.target.value; update(); });
  }
  for (const [id, other] of [["left", "right"], ["right", "left"]]) {
    $(id).addEventListener("change", (event) => {
      if (event.target.value === state[other]) $(other).value = state[other] = state[id];
      state[id] = event.target.value;
      update();
    });
  }
  let waiting;
  $("find").addEventListener("input", (event) => {
    clearTimeout(waiting);
    state.find = event.target.value;
    waiting = setTimeout(update, 150);
  });
  $("view").addEventListener("change", (event) => { state.view = event.target.value; update(); });
  $("quantities").addEventListener("change", (event) => {
    state.colour = event.target.value;
    paint();
    remember();
  });
  document.querySelector(".marks").addEventListener("change", () => {
    const on = ["policy", "entropy"].filter((id) => $(id).firstElementChild.checked);
    state.marks = on.join(" ");
    mark();
    remember();
  });
  $("next").addEventListener("click", () => jump(1));
  $("previous").addEventListener("click", () => jump(-1));
  addEventListener("hashchange", restore);
}

function describePage() {
  const names = runs.map((run) => run.name).join(", ");
  const of = (list) => listed("step", [...new Set(list.map((a) => a.step))].sort((a, b) => a - b));
  const training = answers.filter((a) => !a.held_out);
  const parts = [];
  if (training.length) parts.push(`${plural(training.length, "answer")} of ${of(training)}`);
  if (heldOut.length) {
    parts.push(`${plural(heldOut.length, "held-out answer")} after ${of(heldOut)}`);
  }
  document.title = `${names} · ${of(answers)} · rollouts`;
  $("name").textContent = names;
  const several = runs.length > 1;
  $("settings").textContent = runs.filter((run) => run.settings)
    .map((run) => (several ? `${run.name}: ${run.settings}` : run.settings)).join("; ");
  $("summary").textContent =
    `${parts.join(", ")}. Point at a token, or tap it, to see its numbers.`;
  $("keys").textContent = `Keys: 1 to ${quantities.length} colour, n and p largest tokens, ` +
    "\u2190 \u2192 token, \u2191 \u2193 answer, / find. The address holds what is shown.";
}

answers.forEach(drawAnswer);
fillControls();
describePage();
listenToPointer();
listenToKeys();
listenToControls();
restore();
