// The cards of the answers: tokens, value line, and the tip with the numbers of one token.

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function drawAnswer(a) {
  const tokens = element("p", { className: "tokens" });
  a.token_texts.forEach((text, i) => {
    const token = element("span", { textContent: visibleText(text), tabIndex: i ? -1 : 0 });
    if (a.advantage_mask[i] === false) token.classList.add("no-policy");
    if (a.entropy_mask[i] === false) token.classList.add("no-entropy");
    token.of = { answer: a, i };
    tokens.append(token);
  });
  const facts = [rewardText(a), plural(a.tokens.length, "token")];
  if (a.truncated) facts.push("cut off at the length limit");
  if (Number.isFinite(a.statistics.sigma)) facts.push(`mean σ ${number(a.statistics.sigma)}`);
  if (Number.isFinite(a.statistics.advantage)) {
    facts.push(`mean |A| ${number(a.statistics.advantage)}`);
  }
  if (a.critic !== null) facts.push(`critic ${a.critic} learns from it`);
  const about = element("p", { className: "about" },
    ...facts.map((text, i) => element(i ? "span" : "b", { textContent: text })));
  const problem = element("p", { className: "problem" },
    element("b", { textContent: a.problem }), ` ${withRun(a, stepName(a))}`);
  a.node = element("article", { ariaLabel: `answer ${a.id}` }, problem, about);
  if (a.values.length && a.tokens.length) a.node.append(drawValues(a));
  a.node.append(tokens);
  a.spans = [...tokens.children];
}

// The mean value of each token, each as wide as the others, in the band from the lowest to the
// highest critic. The scale is the page's, so that lines can be compared.
function drawValues(a) {
  const n = a.tokens.length;
  const chart = element("div", { className: "chart" });
  chart.style.setProperty("--tokens", n);
  chart.insertAdjacentHTML("beforeend", valueLine(a)); // made of numbers
  const [first, last] = [a.value_mean[0], a.value_mean[n - 1]];
  chart.firstElementChild.ariaLabel =
    `mean value along the answer, from ${number(first)} to ${number(last)}`;
  const write = (className, v, text) => {
    const label = element("span", { className, textContent: minus(text) });
    label.style.top = `${valueHeight(v)}%`;
    chart.append(label);
  };
  for (const v of valueTicks) write("tick", v, String(+v.toFixed(2)));
  write("end", last, `value ${last.toFixed(2)}`);
  a.cursor = element("i", { hidden: true });
  chart.append(a.cursor);
  chart.of = a;
  return chart;
}
// How far below the top of its line a value is, in percent.
function valueHeight(v) {
  const { low, high } = valueScale;
  return ((high - Math.min(high, Math.max(low, v))) / (high - low) * 100).toFixed(1);
}
function valueLine(a) {
  const n = a.tokens.length;
  const finite = a.value_mean.flatMap((v, i) => (Number.isFinite(v) ? [i] : []));
  // A step line: a token's value holds for the token's width.
  const steps = (of) => finite.flatMap((i) => [i, i + 1].map((edge) =>
    `${(edge / n * 100).toFixed(2)},${valueHeight(of(i))}`));
  const ofCritics = (i) => a.values.map((values) => values[i]);
  const band = [...steps((i) => Math.max(...ofCritics(i))),
    ...steps((i) => Math.min(...ofCritics(i))).reverse()];
  const rules = valueTicks.map(valueHeight).map((y) =>
    `<line x1="0" x2="100" y1="${y}" y2="${y}"/>`);
  return `<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img">${rules.join("")}
    <polygon points="${band.join(" ")}"/>
    <polyline points="${steps((i) => a.value_mean[i]).join(" ")}"/></svg>`;
}

function section(heading, line, ...nodes) {
  return element("section", {}, element("h2", { textContent: heading }),
    element("p", { className: "line", textContent: line }), ...nodes);
}

// Parts of a line; of one answer, its card says the reward.
function rewardsOf(group) {
  const scored = group.filter((a) => a.reward !== null).map((a) => a.reward);
  if (!group.length) return ["no answer saved"];
  if (group.length === 1) return [];
  return [plural(group.length, "sample"),
    scored.length ? `mean reward ${mean(scored).toFixed(2)}` : "no answer is scored"];
}

function numbersOf(a, i) {
  const rows = [];
  if (a.held_out) rows.push(["held out", "no step trains on it"]);
  else rows.push(["advantage", number(a.advantages[i], true)], ["return", number(a.returns[i])]);
  if (a.values.length) {
    rows.push(["value, mean", number(a.value_mean[i])]);
    a.values.forEach((values, k) => rows.push([`value, critic ${k}`, number(values[i])]));
    rows.push(["disagreement σ", number(a.value_std[i])]);
  }
  rows.push(
    ["entropy", `${number(a.entropy[i])} nats`],
    ["log π, learner", number(a.log_probs[i])],
    ["log π, sampler", number(a.old_log_probs[i])],
  );
  if (!a.held_out) {
    rows.push(["policy loss", a.advantage_mask[i] ? "used" : "masked"],
      ["entropy bonus", a.entropy_mask[i] ? "used" : "masked"]);
  }
  return rows;
}

// The tip: next to the token or to the place in its value line, or at the bottom of a small screen.
const tip = $("tip");
let pointed = null; // the token whose numbers are shown
let anchor = null;
function show(token, node = token) {
  hide();
  [pointed, anchor] = [token, node];
  const { answer: a, i } = token.of;
  token.classList.add("pointed");
  if (a.cursor) {
    a.cursor.hidden = false;
    a.cursor.style.left = `${(i + 0.5) / a.tokens.length * 100}%`;
  }
  const close = element("button", { type: "button", textContent: "\u2715", ariaLabel: "close" });
  close.addEventListener("click", forget);
  tip.replaceChildren(
    close,
    element("p", {}, element("b", { textContent: JSON.stringify(a.token_texts[i]) }),
      ` id ${a.tokens[i]}, token ${i + 1} of ${a.tokens.length}`),
    element("dl", {}, ...numbersOf(a, i).flatMap(([name, text]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: text })])));
  tip.hidden = false;
  place();
}
function place() {
  const at = anchor.getClientRects()[0];
  if (!at) return;
  const above = at.top - 8 - tip.offsetHeight;
  // Below a token; above a value line, below which its tokens are.
  const below = anchor === pointed ? at.bottom + 8 + tip.offsetHeight < innerHeight : above < 0;
  tip.style.top = `${below ? at.bottom + 8 : Math.max(8, above)}px`;
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
}
function hide() {
  tip.hidden = true;
  pointed?.classList.remove("pointed");
  if (pointed?.of.answer.cursor) pointed.of.answer.cursor.hidden = true;
  pointed = null;
}
