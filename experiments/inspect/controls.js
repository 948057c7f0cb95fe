// What is shown: filters, order, pairs, marks and search. The address holds all of it.

// Defaults of what the address can hold; only other values are written into it.
const defaults = { view: "", left: "", right: "", run: "", kind: "", step: "", reward: "",
  problem: "", sort: "", find: "", colour: quantities[0].id, marks: "policy", token: "" };
const state = { ...defaults };
let shown = []; // the answers on the page, in their order
let order = null; // the tokens shown, largest first; null: not sorted yet
let rank = -1; // the one that was jumped to
let quantity = quantities[0];
const main = document.querySelector("main");

const kinds = [
  ["training", "training", (a) => !a.held_out],
  ["held out", "held_out", (a) => a.held_out],
];
const rewardKinds = [
  ["1", "1", (a) => a.reward !== null && a.reward >= 1],
  ["between 0 and 1", "between", (a) => a.reward !== null && a.reward > 0 && a.reward < 1],
  ["0", "0", (a) => a.reward !== null && a.reward <= 0],
  ["no score", "none", (a) => a.reward === null],
];
const steps = [...new Set(answers.map((a) => a.step))].sort((a, b) => a - b);
const problems = [...new Set(answers.map((a) => a.problem))];
const shortened = (text, size) => (text.length > size ? `${text.slice(0, size)}…` : text);
const filters = {
  run: runs.map((run, i) => [run.name, String(i), (a) => a.run === i]),
  kind: kinds,
  step: steps.map((step) => [String(step), String(step), (a) => a.step === step]),
  reward: rewardKinds,
  problem: problems.map((p, i) => [shortened(p, 60), String(i), (a) => a.problem === p]),
};
const by = (name, sign) => (a, b) => { // unknown ones last
  const [x, y] = [a.statistics[name], b.statistics[name]];
  return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y);
};
const orders = {
  sigma: ["mean σ, highest first", by("sigma", -1)],
  advantage: ["mean |A|, highest first", by("advantage", -1)],
  low_reward: ["reward, lowest first", by("reward", 1)],
  reward: ["reward, highest first", by("reward", -1)],
  length: ["length, longest first", by("length", -1)],
  short: ["length, shortest first", by("length", 1)],
};
const statisticOf = { low_reward: "reward", short: "length" };
const checkpointOf = (a) => `${a.run}.${a.step}`;
const heldOut = answers.filter((a) => a.held_out);
const checkpoints = [...new Map(heldOut.map((a) => [checkpointOf(a), checkpointName(a)]))];
const nameOfCheckpoint = (value) => checkpoints.find(([one]) => one === value)[1];

// Only options that occur can be chosen, and a control with one option is hidden.
function fillControls() {
  for (const [id, choices] of Object.entries(filters)) {
    const counted = choices.map(([name, value, holds]) =>
      [name, value, answers.filter(holds).length]);
    const present = counted.filter(([, , count]) => count);
    $(id).append(new Option("all", ""));
    for (const [name, value, count] of present) {
      $(id).append(new Option(`${name} (${count})`, value));
    }
    $(id).parentElement.hidden = present.length < 2;
  }
  $("sort").append(new Option("prompt", ""));
  for (const [value, [name]] of Object.entries(orders)) {
    const statistic = statisticOf[value] ?? value;
    const known = answers.map((a) => a.statistics[statistic]).filter(Number.isFinite);
    if (new Set(known).size > 1) $("sort").append(new Option(name, value));
  }
  $("view").hidden = checkpoints.length < 2;
  if (checkpoints.length > 1) {
    [defaults.left, defaults.right] = [checkpoints[0][0], checkpoints.at(-1)[0]];
    for (const id of ["left", "right"]) {
      $(id).append(...checkpoints.map(([value, name]) => new Option(name, value)));
    }
  }
  quantities.forEach((q, i) => {
    q.input = element("input", { type: "radio", name: "quantity", value: q.id });
    const wide = element("span", { className: "wide", textContent: q.wide ?? "" });
    const label = element("span", {}, wide, q.name);
    $("quantities").append(element("label", { title: `key ${i + 1}` }, q.input, label));
  });
}

// Writes the state into the address; `restore` reads it from there.
function remember() {
  const changed = Object.entries(state).filter(([name, value]) => value !== defaults[name]);
  const hash = new URLSearchParams(changed).toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.href.split("#")[0]);
}
function restore() {
  Object.assign(state, defaults);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name in state) state[name] = value;
  }
  const selects = ["left", "right", "sort", ...Object.keys(filters)];
  for (const id of selects) {
    if (![...$(id).options].some((option) => option.value === state[id])) state[id] = defaults[id];
  }
  if (checkpoints.length < 2) state.view = "";
  if (state.left === state.right) [state.left, state.right] = [defaults.left, defaults.right];
  for (const id of [...selects, "find"]) $(id).value = state[id];
  for (const input of $("view").querySelectorAll("input")) {
    input.checked = input.value === state.view;
  }
  for (const id of ["policy", "entropy"]) {
    $(id).firstElementChild.checked = state.marks.split(" ").includes(id);
  }
  update();
  focusToken(...tokenNamed(state.token));
}
const tokenNamed = (name) => {
  const [id, i] = name.split("-");
  return [answers.find((a) => a.id === id), Number(i)];
};

function update() {
  hide();
  const pairs = state.view === "pairs";
  document.body.classList.toggle("pairs", pairs);
  document.body.classList.toggle("sorted", !pairs && state.sort !== "");
  mark();
  find();
  main.replaceChildren(...(pairs ? inPairs() : state.sort ? inOrder() : byPrompt()));
  if (!shown.includes(tokenNamed(state.token)[0])) state.token = "";
  if (!shown.length) {
    main.append(element("p", { className: "line", textContent: "No answer is left." }));
  }
  const masked = (a) => a.advantage_mask.includes(false) || a.entropy_mask.includes(false);
  document.querySelector(".marks").hidden = !shown.some(masked);
  paint();
  remember();
}

function mark() {
  for (const name of ["policy", "entropy"]) {
    document.body.classList.toggle(`mark-${name}`, state.marks.split(" ").includes(name));
  }
}
function chosenBy(ids) {
  const choices = ids.flatMap((id) => filters[id].filter(([, value]) => value === state[id]));
  return answers.filter((a) => choices.every(([, , holds]) => holds(a)));
}
function grouped(list, keyOf) {
  const groups = new Map();
  for (const a of list) {
    if (!groups.has(keyOf(a))) groups.set(keyOf(a), []);
    groups.get(keyOf(a)).push(a);
  }
  return [...groups.values()];
}
const countShown = () =>
  (shown.length < answers.length ? `${shown.length} of ${answers.length} shown` : "");

// The answers to each prompt of a step together.
function byPrompt() {
  shown = chosenBy(Object.keys(filters)).filter((a) => a.found);
  $("shown").textContent = countShown();
  const promptOf = (a) => a.prompt_id;
  const full = new Map(grouped(answers, promptOf).map((group) => [promptOf(group[0]), group]));
  return grouped(shown, promptOf).map((group) => {
    const [a] = group;
    const facts = [withRun(a, stepName(a)), `reference ${a.reference}`,
      ...rewardsOf(full.get(promptOf(a)))]; // also of those that a filter hides
    return section(a.problem, facts.join(" · "), ...group.map((one) => one.node));
  });
}

// All answers in one list; each names its problem.
function inOrder() {
  shown = chosenBy(Object.keys(filters)).filter((a) => a.found);
  shown.sort(orders[state.sort][1]);
  $("shown").textContent = countShown();
  return [element("section", {}, ...shown.map((a) => a.node))];
}

// The answers of two checkpoints to each held-out prompt, beside each other.
function inPairs() {
  const sides = [state.left, state.right];
  const compared = chosenBy(["problem"]).filter((a) =>
    a.held_out && sides.includes(checkpointOf(a)));
  const groups = grouped(compared, (a) => JSON.stringify([a.problem, a.reference]))
    .filter((group) => group.some((a) => a.found)); // both sides, if the text is on one
  const rewards = [[], []];
  const sections = groups.map((group) => {
    const columns = sides.map((side) => group.filter((a) => checkpointOf(a) === side));
    columns.forEach((column, k) => rewards[k].push(meanReward(column)));
    const nodes = columns.map((column, k) => element("div", {},
      element("h3", {}, element("b", { textContent: nameOfCheckpoint(sides[k]) }),
        ["", ...rewardsOf(column)].join(" · ")),
      ...column.map((a) => a.node)));
    return section(group[0].problem, `reference ${group[0].reference}`,
      element("div", { className: "pair" }, ...nodes));
  });
  shown = groups.flatMap((group) =>
    sides.flatMap((side) => group.filter((a) => checkpointOf(a) === side)));
  $("shown").textContent = comparison(...rewards);
  return sections;
}
const meanReward = (list) => mean(list.filter((a) => a.reward !== null).map((a) => a.reward));
function comparison(left, right) {
  const both = left.map((x, i) => [x, right[i]]).filter((pair) => pair.every(Number.isFinite));
  const count = (test) => both.filter(test).length;
  if (!both.length) return "";
  const change = [0, 1].map((k) => mean(both.map((pair) => pair[k])).toFixed(2)).join(" → ");
  const [gained, lost] = [count(([x, y]) => y > x), count(([x, y]) => y < x)];
  return `${plural(both.length, "prompt")}: mean reward ${change}; ${gained} gained, ${lost} lost`;
}

// Finds `state.find` in problems and answers; the tokens where it begins are in `a.matches`.
function find() {
  const text = (state.find.trim() && state.find).replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  for (const a of answers) {
    a.spans.forEach((span) => span.classList.remove("found"));
    [a.matches, a.found] = [[], true];
    if (!text) continue;
    const ends = []; // where each token ends in the text
    for (const token of a.token_texts) ends.push((ends.at(-1) ?? 0) + token.length);
    for (const match of a.text.matchAll(new RegExp(text, "gi"))) {
      const first = ends.findIndex((end) => end > match.index);
      const last = ends.findIndex((end) => end >= match.index + match[0].length);
      a.spans.slice(first, last + 1).forEach((span) => span.classList.add("found"));
      a.matches.push(first);
    }
    a.found = a.matches.length > 0 || new RegExp(text, "i").test(a.problem);
  }
}

// Chooses what colours the tokens: `state.colour`, or the first that these answers have.
function chooseQuantity() {
  for (const q of quantities) {
    q.input.disabled = !shown.some((a) => a.tokens.some((_, i) => Number.isFinite(q.of(a, i))));
  }
  const present = quantities.filter((q) => !q.input.disabled);
  quantity = present.find((q) => q.id === state.colour) ?? present[0] ?? quantities[0];
  quantity.input.checked = true;
}

function paint() {
  chooseQuantity();
  for (const a of shown) {
    a.spans.forEach((span, i) => { span.style.background = colour(quantity, quantity.of(a, i)); });
  }
  const ends = quantity.diverging
    ? [mix("--negative", 1), mix("--positive", 0), mix("--positive", 1)]
    : [mix("--high", 0), mix("--high", 1)];
  $("gradient").style.background = `linear-gradient(to right, ${ends.join(", ")})`;
  const label = (x) => (quantity.diverging && x > 0 ? "+" : "") + minus(String(+x.toPrecision(2)));
  $("low").textContent = label(quantity.low);
  $("high").textContent = label(quantity.high) + (quantity.unit ?? "");
  [order, rank] = [null, -1];
  nameRank();
}
