// A question of one's own: two models answer it side by side, as they go; then it is voted on as any other pair.
"use strict";

function showQuestion() {
  element("message").hidden = element("judging").hidden = element("vote").hidden = true;
  element("asking").hidden = false;
  element("message-text").focus();
}

function askModels() {
  const question = element("message-text").value.trim();
  if (!question) return;
  during(async () => {
    element("asking").hidden = element("trouble").hidden = element("why").hidden = true;
    element("judging").hidden = false;
    element("conversation").replaceChildren(turn({ role: "user", content: question }));
    const problem = await stream(question);
    element("left").ariaBusy = element("right").ariaBusy = "false";
    if (problem) {
      element("trouble").textContent = problem;
      element("trouble").hidden = false;
      showQuestion();
    } else {
      element("message-text").value = "";
      askForVote();
    }
  });
}

// Shows both answers as they come; returns what went wrong, or null where they can be voted on.
async function stream(question) {
  const answers = { left: "", right: "" };
  const redraw = (side) => {
    element(side).querySelector(".text").replaceChildren();
    if (answers[side]) write(answers[side].trim(), element(side).querySelector(".text"));
  };
  for (const side of ["left", "right"]) {
    element(side).ariaBusy = "true";
    element(side).classList.remove("chosen");
    redraw(side);
  }
  try {
    const response = await request("/api/live", { question });
    if (!response.ok) return (await response.json()).error;
    for await (const line of linesOf(response.body)) {
      if (line.error) return `Just now ${line.error}.`;
      if ("name" in line) {
        if (line.name === null) return "Both gave the same answer, so there is nothing to choose. Ask something else.";
        page.pair = { name: line.name };
        return null;
      }
      answers[line.side] += line.text;
      redraw(line.side);
    }
  } catch {
    // The connection broke: the same as an answer that broke off.
  }
  return "The answers broke off. Ask again.";
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}
