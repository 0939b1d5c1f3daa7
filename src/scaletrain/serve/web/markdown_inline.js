/** The inside of a block of Markdown: code, emphasis, strike-through, links, escapes and line breaks, as nodes. */

import { element } from "./dom.js";

/** @typedef {{nodes: Node[], end: number}} Found what was made of the text, and where it ends there */
/**
 * Where in a text its parser is: how many emphases and links are around it, whether one of them is a link, and the
 * marks that do not close from some point on (to look for each once keeps the time linear).
 * @typedef {{depth: number, inLink: boolean, unclosed: Set<string>}} Context
 */

const SPECIAL = /[\\`*_~[!<h\n]/g;
const ESCAPE = /\\([!-/:-@[-`{-~])/y;
const LINK = /!?\[([^[\]]{0,1000})\]\(<?((?:[^\s()<>]|\([^\s()]{0,500}\)){1,2000})>?(?:[ \t]+"[^"]{0,500}")?\)/y;
const ADDRESS = /<?(https?:\/\/[^\s<>"`*|]{1,2000})>?/y;
const EMPHASIS = /** @type {const} */ ([
  ["***", "strong"],
  ["**", "strong"],
  ["*", "em"],
  ["__", "strong"],
  ["_", "em"],
  ["~~", "del"],
]);
const MAX_DEPTH = 6;

/**
 * @param {string} text
 * @param {{depth?: number, inLink?: boolean}} [around]
 * @returns {(Node | string)[]}
 */
export function inline(text, { depth = 0, inLink = false } = {}) {
  /** @type {(Node | string)[]} */
  const nodes = [];
  /** @type {Context} */
  const context = { depth, inLink, unclosed: new Set() };
  let plainFrom = 0;
  for (let at = nextSpecial(text, 0); at < text.length; ) {
    const found = depth < MAX_DEPTH ? spanAt(text, at, context) : null;
    if (found) {
      if (at > plainFrom) nodes.push(text.slice(plainFrom, at));
      nodes.push(...found.nodes);
      plainFrom = found.end;
    }
    at = nextSpecial(text, found ? found.end : afterMark(text, at));
  }
  if (plainFrom < text.length) nodes.push(text.slice(plainFrom));
  return nodes;
}

/**
 * @param {string} text
 * @param {number} from
 */
function nextSpecial(text, from) {
  SPECIAL.lastIndex = from;
  return SPECIAL.exec(text)?.index ?? text.length;
}

/**
 * Past a run of the same mark: what did not open at its beginning does not open in its midst.
 * @param {string} text
 * @param {number} at
 */
function afterMark(text, at) {
  return "*_~`".includes(text[at]) ? endOfRun(text, at) : at + 1;
}

/**
 * @param {string} text
 * @param {number} at
 */
function endOfRun(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end;
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @returns {Found | null}
 */
function spanAt(text, at, context) {
  switch (text[at]) {
    case "\n":
      return { nodes: [element("br")], end: at + 1 };
    case "\\":
      return escapeAt(text, at);
    case "`":
      return codeAt(text, at, context);
    case "[":
    case "!":
      return context.inLink ? null : linkAt(text, at, context);
    case "<":
    case "h":
      return context.inLink ? null : addressAt(text, at);
    default:
      return emphasisAt(text, at, context);
  }
}

/**
 * @param {string} text
 * @param {number} at
 */
function escapeAt(text, at) {
  ESCAPE.lastIndex = at;
  const found = ESCAPE.exec(text);
  return found && { nodes: [document.createTextNode(found[1])], end: at + 2 };
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 */
function codeAt(text, at, { unclosed }) {
  const start = endOfRun(text, at);
  const mark = text.slice(at, start);
  if (unclosed.has(mark)) return null;
  for (let close = text.indexOf("`", start); close !== -1; ) {
    const end = endOfRun(text, close);
    if (end - close === mark.length) {
      // One space on either side is there to part the code from a backtick in it.
      const code = text.slice(start, close).replaceAll("\n", " ").replace(/^ (.*\S.*) $/, "$1");
      return { nodes: [element("code", { dir: "auto" }, code)], end };
    }
    close = text.indexOf("`", end);
  }
  unclosed.add(mark);
  return null;
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 */
function linkAt(text, at, { depth }) {
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  const address = found && webAddress(found[2]);
  if (!address) return null;
  return { nodes: [link(address, inline(found[1] || found[2], { depth: depth + 1, inLink: true }))], end: at + found[0].length };
}

/**
 * @param {string} text
 * @param {number} at
 */
function addressAt(text, at) {
  if (/\w/.test(text[at - 1] ?? " ")) return null;
  ADDRESS.lastIndex = at;
  const found = ADDRESS.exec(text);
  if (!found) return null;
  if (found[0].startsWith("<") !== found[0].endsWith(">")) return null;
  const written = found[0].startsWith("<") ? found[1] : withoutPunctuation(found[1]);
  const address = webAddress(written);
  if (!address) return null;
  const end = found[0].startsWith("<") ? at + found[0].length : at + written.length;
  return { nodes: [link(address, [written])], end };
}

/**
 * An address without the full stop or bracket of the sentence around it.
 * @param {string} address
 */
function withoutPunctuation(address) {
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (!".,:;!?)]}'。，、！？）".includes(last)) break;
    if (last === ")" && address.slice(0, end).includes("(")) break;
  }
  return address.slice(0, end);
}

/**
 * The address if it is one of the web: no script, no file, no data.
 * @param {string} text
 */
function webAddress(text) {
  const address = URL.canParse(text) ? new URL(text) : null;
  return address && ["http:", "https:"].includes(address.protocol) ? address.href : null;
}

/**
 * @param {string} href
 * @param {(Node | string)[]} content
 */
function link(href, content) {
  return element("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...content);
}

/**
 * @param {string} text
 * @param {number} at
 * @param {Context} context
 * @returns {Found | null}
 */
function emphasisAt(text, at, { depth, inLink, unclosed }) {
  for (const [mark, tag] of EMPHASIS) {
    const start = at + mark.length;
    if (!text.startsWith(mark, at) || unclosed.has(mark) || !/\S/.test(text[start] ?? " ")) continue;
    // snake_case and 2*3 are no emphasis.
    if (/\w/.test(text[at - 1] ?? " ") && (mark[0] === "_" || /\d/.test(text[start]))) continue;
    const close = closingMark(text, mark, start + 1);
    if (close === -1) {
      unclosed.add(mark);
      continue;
    }
    const content = inline(text.slice(start, close), { depth: depth + 1, inLink });
    const made = element(tag, {}, ...content);
    return { nodes: [mark === "***" ? element("em", {}, made) : made], end: close + mark.length };
  }
  return null;
}

/**
 * Where a mark closes: after a character that is no space, at the end of a run that is long enough, and not as a part
 * of a double mark when a single one is sought.
 * @param {string} text
 * @param {string} mark
 * @param {number} from
 */
function closingMark(text, mark, from) {
  for (let at = text.indexOf(mark, from); at !== -1; ) {
    const end = endOfRun(text, at);
    const length = end - at;
    const closes = length >= mark.length && !(mark.length === 1 && length === 2);
    const afterText = /\S/.test(text[at - 1]) && text[at - 1] !== "\\";
    if (closes && afterText && !(mark[0] === "_" && /\w/.test(text[end] ?? " "))) return end - mark.length;
    at = text.indexOf(mark, end);
  }
  return -1;
}
