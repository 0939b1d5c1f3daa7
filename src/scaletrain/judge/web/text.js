// How what models and people wrote is put on the page: as text (textContent), never as HTML.
"use strict";

// Text with `code`, **bold** and fenced code; all else stays as it was written.
function write(text, into) {
  into.replaceChildren();
  if (!text) {
    const nothing = into.appendChild(document.createElement("p"));
    nothing.className = "dim";
    nothing.textContent = "(no answer)";
    return;
  }
  text.split(/^```[^\n]*\n([\s\S]*?)(?:^```[ \t]*$|$(?![\s\S]))/m).forEach((part, place) => {
    if (place % 2) {
      const block = into.appendChild(document.createElement("pre"));
      block.tabIndex = 0; // a long line is scrolled to by keys
      block.appendChild(document.createElement("code")).textContent = part;
      return;
    }
    for (const paragraph of part.split(/\n{2,}/)) {
      if (!paragraph.trim()) continue;
      const block = into.appendChild(document.createElement("p"));
      for (const piece of paragraph.replace(/^\n+|\n+$/g, "").split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
        const marked = /^`.+`$/.test(piece) ? ["code", 1] : /^\*\*.+\*\*$/.test(piece) ? ["strong", 2] : null;
        if (marked) block.appendChild(document.createElement(marked[0])).textContent = piece.slice(marked[1], -marked[1]);
        else block.append(piece);
      }
    }
  });
}

function turn(message) {
  const system = message.role === "system";
  const block = document.createElement(system ? "details" : "div");
  block.className = `turn ${message.role}`;
  const role = block.appendChild(document.createElement(system ? "summary" : "div"));
  role.className = "role";
  role.textContent = { system: "Instructions to the assistant", user: "Person", assistant: "Assistant" }[message.role];
  const text = block.appendChild(document.createElement("div"));
  text.className = "text";
  text.dir = "auto";
  write(message.content, text);
  return block;
}
