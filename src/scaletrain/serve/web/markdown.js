/**
 * Markdown as elements. What a model or a person wrote becomes text nodes, and the address of a link if it is http or
 * https; there is no way from a text to another element or attribute, so nothing has to be sanitised.
 *
 * Of CommonMark 0.31 and GitHub's tables: headings, paragraphs, fenced code, lists, quotes, tables, rules; code,
 * emphasis, strike-through, links, bare addresses, escapes. Line breaks are kept, HTML is shown as text, and an image
 * becomes a link: to read an answer loads nothing from elsewhere. The time taken grows with the length of the text
 * alone, whatever it holds.
 */

import { copyButton, element } from "./dom.js";
import { inline } from "./markdown_inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const MAX_DEPTH = 8;

/** Markdown in an element; of a text that grows only the blocks that changed are made again. */
export class MarkdownView {
  /** @type {string[]} */
  #sources = [];

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /** @param {string} text */
  show(text) {
    const blocks = splitBlocks(text.split("\n"));
    const sources = blocks.map((lines) => lines.join("\n"));
    let same = 0;
    while (same < sources.length && sources[same] === this.#sources[same]) same += 1;
    while (this.place.childNodes.length > same) this.place.lastChild?.remove();
    this.place.append(...blocks.slice(same).map((lines) => block(lines, 0)));
    this.#sources = sources;
  }
}

/**
 * Cuts lines into blocks, without the blank lines between them; a block's kind shows in its first lines.
 * @param {string[]} lines
 * @returns {string[][]}
 */
function splitBlocks(lines) {
  const blocks = [];
  for (let start = 0; start < lines.length; ) {
    if (!lines[start].trim()) {
      start += 1;
      continue;
    }
    let end = endOfBlock(lines, start);
    const next = end;
    while (!lines[end - 1].trim()) end -= 1;
    blocks.push(lines.slice(start, end));
    start = next;
  }
  return blocks;
}

/**
 * @param {string[]} lines
 * @param {number} start
 */
function endOfBlock(lines, start) {
  const fence = FENCE.exec(lines[start]);
  let end = start + 1;
  if (fence) {
    while (end < lines.length && !closesFence(lines[end], fence[1])) end += 1;
    return Math.min(end + 1, lines.length);
  }
  if (HEADING.test(lines[start]) || RULE.test(lines[start])) return end;
  if (QUOTE.test(lines[start])) {
    while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  } else if (ITEM.test(lines[start])) {
    end = endOfList(lines, start);
  } else if (beginsTable(lines, start)) {
    while (end < lines.length && lines[end].includes("|")) end += 1;
  } else {
    while (end < lines.length && lines[end].trim() && !interruptsParagraph(lines, end)) end += 1;
  }
  return end;
}

/**
 * @param {string} line
 * @param {string} fence
 */
function closesFence(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

/**
 * @param {string[]} lines
 * @param {number} at
 */
function interruptsParagraph(lines, at) {
  const line = lines[at];
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((kind) => kind.test(line)) || beginsTable(lines, at);
}

/**
 * @param {string[]} lines
 * @param {number} at
 */
function beginsTable(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return false;
  const rule = cells(lines[at + 1]);
  return rule.every((cell) => /^:?-+:?$/.test(cell)) && rule.length === cells(lines[at]).length;
}

/**
 * A list goes on with items of its own kind, with lines that are indented below an item, and with plain lines that
 * follow without a blank one.
 * @param {string[]} lines
 * @param {number} start
 */
function endOfList(lines, start) {
  const [, indent, marker] = /** @type {RegExpExecArray} */ (ITEM.exec(lines[start]));
  let end = start + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (!line.trim()) continue;
    const item = ITEM.exec(line);
    if (leadingSpaces(line) >= indent.length + 2) continue;
    if (item && !RULE.test(line) && kindOf(item[2]) === kindOf(marker)) continue;
    if (item || !lines[end - 1].trim() || interruptsParagraph(lines, end)) break;
  }
  return end;
}

/** @param {string} marker */
function kindOf(marker) {
  return marker.length > 1 ? "ol" : "ul";
}

/** @param {string} line */
function leadingSpaces(line) {
  return line.length - line.trimStart().length;
}

/**
 * @param {string[]} lines a block
 * @param {number} depth how many lists and quotes are around it
 * @returns {HTMLElement}
 */
function block(lines, depth) {
  const [first] = lines;
  const fence = FENCE.exec(first);
  if (fence) return codeBlock(lines, fence);
  const heading = HEADING.exec(first);
  if (heading) return headingOf(heading[1].length, heading[2]);
  if (RULE.test(first)) return element("hr");
  if (depth < MAX_DEPTH && QUOTE.test(first)) {
    const inner = splitBlocks(lines.map((line) => line.replace(QUOTE, "")));
    return element("blockquote", { dir: "auto" }, ...inner.map((each) => block(each, depth + 1)));
  }
  if (depth < MAX_DEPTH && ITEM.test(first)) return list(lines, depth);
  if (beginsTable(lines, 0)) return table(lines);
  return element("p", { dir: "auto" }, ...inline(lines.map((line) => line.trim()).join("\n")));
}

/**
 * The page has its own h1 and h2: an answer's headings stay below them.
 * @param {number} level
 * @param {string} text
 */
function headingOf(level, text) {
  return element(level < 3 ? "h3" : "h4", { dir: "auto" }, ...inline(text.trim().replace(/[ \t]#+$/, "")));
}

/**
 * @param {string[]} lines
 * @param {RegExpExecArray} fence
 */
function codeBlock(lines, fence) {
  const closed = lines.length > 1 && closesFence(lines[lines.length - 1], fence[1]);
  const code = lines.slice(1, closed ? -1 : undefined).join("\n");
  const language = fence[2].trim().split(/\s/)[0];
  return element(
    "div",
    { className: "code", dir: "ltr" },
    element("div", { className: "code-head" }, element("span", {}, language || "code"), copyButton("Copy code", () => code)),
    element("pre", { tabIndex: 0, role: "region", "aria-label": `Code ${language}`.trim() }, element("code", {}, code)),
  );
}

/**
 * @param {string[]} lines
 * @param {number} depth
 */
function list(lines, depth) {
  const [, indent, marker] = /** @type {RegExpExecArray} */ (ITEM.exec(lines[0]));
  /** @type {string[][]} */
  const items = [];
  let width = 0;
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length < indent.length + 2) {
      width = item[0].length;
      items.push([line.slice(width)]);
    } else {
      items[items.length - 1].push(line.slice(Math.min(width, leadingSpaces(line))));
    }
  }
  const made = items.map((item) => element("li", {}, ...itemContent(item, depth)));
  if (kindOf(marker) === "ul") return element("ul", { dir: "auto" }, ...made);
  return element("ol", { dir: "auto", start: parseInt(marker, 10) }, ...made);
}

/**
 * @param {string[]} lines
 * @param {number} depth
 * @returns {Node[]}
 */
function itemContent(lines, depth) {
  const made = splitBlocks(lines).map((each) => block(each, depth + 1));
  // The first line stands beside the marker: without the space above and below that a paragraph has.
  return made[0]?.tagName === "P" ? [...made[0].childNodes, ...made.slice(1)] : made;
}

/** @param {string[]} lines */
function table(lines) {
  const alignments = cells(lines[1]).map((cell) => {
    if (!cell.endsWith(":")) return "start";
    return cell.startsWith(":") ? "center" : "end";
  });
  const row = (/** @type {string} */ line, /** @type {"td" | "th"} */ kind) => {
    const found = cells(line);
    const made = alignments.map((alignment, column) =>
      element(kind, { className: alignment, dir: "auto" }, ...inline(found[column] ?? "")),
    );
    return element("tr", {}, ...made);
  };
  const head = element("thead", {}, row(lines[0], "th"));
  const body = element("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  const frame = { className: "table", tabIndex: 0, role: "region", "aria-label": "Table" };
  return element("div", frame, element("table", { dir: "auto" }, head, body));
}

/**
 * The cells of a row; a bar after a backslash is text.
 * @param {string} line
 */
function cells(line) {
  const row = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
