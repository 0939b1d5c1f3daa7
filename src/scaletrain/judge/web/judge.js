// The page of a judging. (text.js puts what models and people wrote on it, live.js asks models questions.)
// A vote is kept in this browser until the server has it, and is sent again after an error or a reload.
"use strict";

const element = (id) => document.getElementById(id);
const SLOWEST_RETRY_MS = 30000;
const CHOICES = { 1: "left", 2: "tie", 3: "right", 4: "both_bad" };

const page = {
  who: null, // {name, token} of the judge
  pair: null, // what is shown
  shownAt: 0, // when, in ms
  busy: false,
  history: [], // names of pairs that this tab voted on
};

// ---- talking to the server ---------------------------------------------------------------------------------------

class Refused extends Error {}
class Unreachable extends Error {}

function request(path, body) {
  const headers = { "x-judge": encodeURIComponent(page.who?.name ?? "") };
  if (page.who?.token) headers.authorization = `Bearer ${page.who.token}`;
  if (body) headers["content-type"] = "application/json";
  return fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
}

async function ask(path, body) {
  let response, content;
  try {
    response = await request(path, body);
    content = await response.json();
  } catch {
    throw new Unreachable("the server does not answer");
  }
  if (response.ok) return content;
  if (response.status >= 500) throw new Unreachable(content.error);
  throw new Refused(content.error ?? `the server answered ${response.status}`);
}

// Asks until there is an answer; meanwhile says what is wrong.
async function insist(path, body) {
  for (let waitMs = 1000; ; waitMs = Math.min(2 * waitMs, SLOWEST_RETRY_MS)) {
    try {
      const answer = await ask(path, body);
      element("trouble").hidden = true;
      return answer;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      const kept = body ? "Your vote is kept in this browser and is sent again by itself." : "Trying again.";
      element("trouble").textContent = `Just now ${error.message}. ${kept}`;
      element("trouble").hidden = false;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

// ---- votes that the server does not have yet -----------------------------------------------------------------------

const unsentKey = () => `scaletrain-judge-unsent:${page.who.name}`;
const unsent = () => JSON.parse(localStorage.getItem(unsentKey()) ?? "{}");

function keep(vote) {
  localStorage.setItem(unsentKey(), JSON.stringify({ ...unsent(), [vote.pair]: vote }));
}

function forget(vote) {
  const left = unsent();
  delete left[vote.pair];
  localStorage.setItem(unsentKey(), JSON.stringify(left));
}

async function send(vote) {
  keep(vote);
  try {
    return await insist("/api/votes", vote);
  } finally {
    forget(vote); // it is there, or was refused for good
  }
}

// ---- showing -------------------------------------------------------------------------------------------------------

function show(answer, vote) {
  const { progress } = answer;
  page.pair = answer.pair;
  element("who").textContent = answer.judge;
  const all = progress.wanted ? `, ${progress.done} of ${progress.wanted} in all` : "";
  element("count").textContent = `${progress.mine} by you${all}`;
  element("progress").setAttribute("aria-valuemax", progress.wanted);
  element("progress").setAttribute("aria-valuenow", progress.done);
  element("progress").firstElementChild.style.width = `${(100 * progress.done) / Math.max(progress.wanted, 1)}%`;
  element("undo").hidden = page.history.length === 0;
  element("asking").hidden = true;
  if (answer.may_ask) {
    showQuestion();
    return;
  }
  if (!page.pair) {
    tell("That is all. Thank you!", `You judged ${progress.mine}. There is nothing left for you; this page can be closed.`);
    return;
  }
  element("message").hidden = true;
  element("judging").hidden = false;
  element("conversation").replaceChildren(...page.pair.messages.map(turn));
  write(page.pair.left, element("left").querySelector(".text"));
  write(page.pair.right, element("right").querySelector(".text"));
  askForVote(vote);
}

function askForVote(vote) {
  element("vote").hidden = element("why").hidden = false;
  for (const box of document.querySelectorAll("#reasons input")) box.checked = vote?.reasons.includes(box.value) ?? false;
  element("note").value = vote?.note ?? "";
  for (const choice of document.querySelectorAll("#choices input")) choice.checked = choice.value === vote?.choice;
  chosen();
  window.scrollTo(0, 0);
  element("question").focus({ preventScroll: true });
  element("status").textContent = vote ? "Back at an earlier pair: you can change your vote." : "";
  page.shownAt = performance.now();
}

function tell(headline, explanation) {
  element("judging").hidden = element("vote").hidden = element("asking").hidden = true;
  element("message").hidden = false;
  element("ask").hidden = true;
  element("headline").textContent = headline;
  element("explanation").textContent = explanation;
  element("headline").focus();
}

function choice() {
  return document.querySelector("#choices input:checked")?.value;
}

function chosen() {
  element("left").classList.toggle("chosen", choice() === "left");
  element("right").classList.toggle("chosen", choice() === "right");
  element("next").disabled = page.busy || !choice();
}

// ---- what a judge does ---------------------------------------------------------------------------------------------

// Runs one thing at a time; an error that is for good is shown.
async function during(action) {
  if (page.busy) return;
  page.busy = true;
  chosen();
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell("This does not work", error.message);
    if (!page.who.token) askForName();
  } finally {
    page.busy = false;
    chosen();
  }
}

function submit() {
  if (!page.pair || element("vote").hidden) return;
  if (!choice()) {
    element("status").textContent = "Choose first: 1, 2, 3 or 4.";
    return;
  }
  during(async () => {
    const reasons = [...document.querySelectorAll("#reasons input:checked")].map((box) => box.value);
    const seconds = (performance.now() - page.shownAt) / 1000;
    const vote = { pair: page.pair.name, choice: choice(), reasons, note: element("note").value, seconds };
    const answer = await send(vote);
    page.history = [...page.history.filter((name) => name !== vote.pair), vote.pair];
    show(answer);
  });
}

function undo() {
  if (page.history.length === 0) return;
  during(async () => {
    const answer = await insist(`/api/pairs/${page.history.pop()}`);
    show(answer, answer.vote);
  });
}

async function start() {
  await during(async () => {
    for (const vote of Object.values(unsent())) await send(vote);
    show(await insist("/api/next"));
    if (!page.who.token) localStorage.setItem("scaletrain-judge-name", page.who.name);
  });
}

function begin(setting) {
  const [name, token] = location.hash.slice(1).split(":");
  if (setting.needs_link && !token) {
    tell("A link of your own is needed", "Ask whoever invited you for yours.");
    return;
  }
  const known = setting.needs_link ? decodeURIComponent(name) : localStorage.getItem("scaletrain-judge-name");
  if (known) {
    page.who = { name: known, token };
    start();
    return;
  }
  tell(setting.question, "You see a message and two answers, and are not told who wrote them. Your name tells votes apart.");
  askForName();
}

function askForName() {
  element("ask").hidden = false;
  element("name").focus();
}

function onKey(event) {
  const { key, target } = event;
  if (event.metaKey || event.altKey || (event.ctrlKey && key !== "Enter")) return;
  if (target.tagName === "TEXTAREA" || target.id === "name") {
    if (key === "Escape") target.blur();
    if (key === "Enter" && event.ctrlKey) target.id === "message-text" ? askModels() : submit();
  } else if (CHOICES[key]) {
    document.querySelector(`#choices input[value=${CHOICES[key]}]`).checked = true;
    chosen();
  } else if (key === "Enter" && !["BUTTON", "SUMMARY"].includes(target.tagName)) {
    event.preventDefault();
    submit();
  } else if (key.toLowerCase() === "u") {
    undo();
  } else if (key.toLowerCase() === "n" && !element("vote").hidden) {
    event.preventDefault();
    element("why").open = true;
    element("note").focus();
  }
}

function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = (document.documentElement.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("scaletrain-judge-theme", theme);
}

function reasonBox(reason) {
  const label = document.createElement("label");
  const box = label.appendChild(document.createElement("input"));
  box.type = "checkbox";
  box.value = reason;
  label.appendChild(document.createElement("span")).textContent = reason;
  return label;
}

async function open() {
  const theme = localStorage.getItem("scaletrain-judge-theme");
  if (theme) document.documentElement.dataset.theme = theme;
  element("theme").addEventListener("click", switchTheme);
  element("undo").addEventListener("click", undo);
  element("choices").addEventListener("change", chosen);
  element("vote").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  element("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    page.who = { name: element("name").value.trim() };
    start();
  });
  element("asking").addEventListener("submit", (event) => {
    event.preventDefault();
    askModels();
  });
  document.addEventListener("keydown", onKey);
  const setting = await insist("/api/setting");
  element("question").textContent = document.title = setting.question;
  element("reasons").append(...setting.reasons.map(reasonBox));
  begin(setting);
}

open();
