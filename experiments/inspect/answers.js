"use strict";
// The answers of the page, the quantities that can colour their tokens, and numbers as text.

const $ = (id) => document.getElementById(id);
const { runs, answers } = JSON.parse($("rollouts").textContent);
answers.sort((a, b) => a.run - b.run || a.held_out - b.held_out || a.step - b.step);

const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const minus = (text) => text.replaceAll("-", "\u2212");
function number(x, sign = false) {
  if (!Number.isFinite(x)) return "not a number";
  const digits = x !== 0 && Math.abs(x) < 0.001 ? x.toExponential(1) : x.toFixed(3);
  return (sign && x > 0 ? "+" : "") + minus(digits);
}

// What one checkpoint, or one step of training, answered: its name, for headings and links.
const stepName = (a) => (a.held_out ? `held out, after step ${a.step}` : `step ${a.step}`);
const withRun = (a, text) => (runs.length > 1 ? `${runs[a.run].name} · ${text}` : text);
const checkpointName = (a) => withRun(a, `step ${a.step}`);

const samples = new Map(); // answers so far to each prompt of a step
for (const a of answers) {
  a.prompt_id = `${a.run}.${a.held_out ? "h" : "t"}${a.step}.${a.group}`;
  const sample = samples.get(a.prompt_id) ?? 0;
  samples.set(a.prompt_id, sample + 1);
  a.id = `${a.prompt_id}.${sample}`;
  for (const name of ["advantages", "value_std", "entropy", "log_probs"]) {
    a[name] = a[name].map((x) => x ?? NaN);
  }
  a.values = a.values.map((values) => values.map((x) => x ?? NaN));
  a.value_mean = a.values.length ? a.tokens.map((_, i) => mean(a.values.map((v) => v[i]))) : [];
  a.text = a.token_texts.join("");
  a.statistics = {
    sigma: a.values.length ? mean(a.value_std) : NaN,
    advantage: mean(a.advantages.map(Math.abs)),
    reward: a.reward ?? NaN,
    length: a.tokens.length,
  };
}

// The quantities that can colour the tokens. A scale goes from `low` to `high`, or from 0 to both.
const quantities = [
  { id: "advantage", size: "|A|", diverging: true, of: (a, i) => a.advantages[i] },
  { id: "value", of: (a, i) => a.value_mean[i] },
  { id: "sigma", name: "σ", wide: "disagreement ",
    of: (a, i) => (a.values.length ? a.value_std[i] : NaN) }, // without critics σ is 0
  { id: "entropy", unit: " nats", of: (a, i) => a.entropy[i] },
  { id: "surprise", unit: " nats", of: (a, i) => -a.log_probs[i] },
].filter((q) => answers.some((a) => a.tokens.some((_, i) => Number.isFinite(q.of(a, i)))));

const sizeOf = (q, a, i) => (q.diverging ? Math.abs(q.of(a, i)) : q.of(a, i));
function quantilesOf(numbers) {
  const sorted = Float64Array.from(numbers.filter(Number.isFinite)).sort();
  return (p) => sorted[Math.floor(p * (sorted.length - 1))] ?? 0;
}
// The values' scale, for colours and for value lines: in tenths, so that its ends can be read.
const valueScale = (() => {
  const quantile = quantilesOf(answers.flatMap((a) => a.values.flat()));
  const low = Math.floor(quantile(0.005) * 10) / 10;
  return { low, high: Math.max(low + 0.2, Math.ceil(quantile(0.995) * 10) / 10) };
})();
// Where values can be read: the lowest, a middle and the highest reward that are on the scale.
const valueTicks = [0, 0.5, 1].filter((v) => v >= valueScale.low && v <= valueScale.high);
if (valueTicks.length < 2) valueTicks.splice(0, 2, valueScale.low, valueScale.high);
for (const q of quantities) {
  q.name ??= q.id;
  const quantile = quantilesOf(answers.flatMap((a) => a.tokens.map((_, i) => sizeOf(q, a, i))));
  // Not the maximum: outliers would make all others pale.
  q.high = quantile(0.95) || quantile(1) || 1;
  q.low = q.diverging ? -q.high : 0;
  if (q.id === "value") Object.assign(q, valueScale);
}

// A colour between the card's and an end of the scale.
function mix(end, fraction) {
  const percent = Math.round(100 * Math.min(1, Math.max(0, fraction)));
  return `color-mix(in oklab, var(${end}) ${percent}%, var(--card))`;
}
function colour(q, x) {
  if (!Number.isFinite(x)) return "transparent";
  if (q.diverging) return mix(x < 0 ? "--negative" : "--positive", Math.abs(x) / q.high);
  return mix("--high", (x - q.low) / (q.high - q.low));
}

// A token's visible text: white space gets a symbol, and a line break still breaks the line.
function visibleText(text) {
  if (text === "") return "\u25ab"; // a part of a character that a later token completes
  return text.replace(/\t/g, "\u21e5\t").replace(/\r?\n/g, "\u21b5\n");
}

function rewardText(a) {
  if (a.reward === null) return "\u25cc no score";
  const mark = a.reward >= 1 ? "\u25cf" : a.reward > 0 ? "\u25d0" : "\u25cb";
  return `${mark} reward ${minus(String(+a.reward.toFixed(3)))}`;
}

// "step 3", "steps 3, 6, 9", or "steps 10 to 300 (30)" where they are many.
function listed(noun, numbers) {
  if (numbers.length === 1) return `${noun} ${numbers[0]}`;
  noun += "s";
  if (numbers.length <= 6) return `${noun} ${numbers.join(", ")}`;
  return `${noun} ${numbers[0]} to ${numbers.at(-1)} (${numbers.length})`;
}
