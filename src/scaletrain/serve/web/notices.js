/** What the page tells in passing: a line to read for a while, and words for a screen reader. */

import { byId, element } from "./dom.js";

const NOTICE_MS = 10_000;

/**
 * Tells something in passing, with a way back where there is one; it stays while it is pointed at or has the focus.
 * @param {string} text
 * @param {() => void} [undo]
 */
export function notify(text, undo) {
  const notice = element("div", { className: "notice" }, element("span", {}, text));
  const end = () => notice.remove();
  const endWhenLeft = () => {
    if (notice.matches(":hover, :focus-within")) setTimeout(endWhenLeft, NOTICE_MS);
    else end();
  };
  if (undo) notice.append(element("button", { type: "button", onclick: () => (end(), undo()) }, "Undo"));
  notice.append(element("button", { type: "button", onclick: end }, "Dismiss"));
  byId("notice", HTMLElement).replaceChildren(notice);
  setTimeout(endWhenLeft, NOTICE_MS);
}

/**
 * Lets a screen reader say something; an answer is said once, when it is whole, and not word by word.
 * @param {string} text
 */
export function announce(text) {
  byId("announcements", HTMLElement).textContent = text;
}
