/** The list of conversations: open, rename and delete them, take them elsewhere and bring them in. */

import { byId, element, iconButton } from "./dom.js";

/** @import { Conversation } from "./conversations.js" */
/**
 * @typedef {object} Actions
 * @property {(id: string) => void} open
 * @property {(id: string, title: string) => void} rename
 * @property {(id: string) => void} remove
 */

const NARROW = matchMedia("(max-width: 800px)");

export class Sidebar {
  /** @param {Actions} actions */
  constructor(actions) {
    this.actions = actions;
    this.nav = byId("sidebar", HTMLElement);
    this.list = byId("conversations", HTMLUListElement);
    this.menu = byId("menu", HTMLButtonElement);
    this.menu.onclick = () => this.toggle();
    byId("scrim", HTMLElement).onclick = () => this.toggle(false);
    this.nav.onkeydown = ({ key }) => {
      if (key === "Escape" && NARROW.matches) this.toggle(false);
    };
    NARROW.onchange = () => this.toggle(!NARROW.matches);
    this.toggle(!NARROW.matches);
  }

  /** Shows or hides the list; a narrow page shows it above the conversation. */
  toggle(shown = this.nav.inert) {
    const hadFocus = this.nav.contains(document.activeElement);
    this.nav.inert = !shown;
    document.body.classList.toggle("without-sidebar", !shown);
    this.menu.setAttribute("aria-expanded", String(shown));
    if (!shown && hadFocus) this.menu.focus();
    if (shown && NARROW.matches) byId("new", HTMLButtonElement).focus();
  }

  /** On a narrow page the list makes way for what was chosen from it. @returns {boolean} whether it did */
  makeWay() {
    if (NARROW.matches) this.toggle(false);
    return NARROW.matches;
  }

  /**
   * @param {Conversation[]} conversations
   * @param {{current: string, writing: (id: string) => boolean}} state
   */
  show(conversations, { current, writing }) {
    const items = conversations.map((conversation) => this.#item(conversation, current, writing(conversation.id)));
    const focused = this.list.contains(document.activeElement) ? document.activeElement?.id : undefined;
    this.list.replaceChildren(...items);
    if (focused) document.getElementById(focused)?.focus();
    byId("no-conversations", HTMLElement).hidden = conversations.length > 0;
  }

  /**
   * @param {Conversation} conversation
   * @param {string} current
   * @param {boolean} writing
   */
  #item({ id, title }, current, writing) {
    const open = element(
      "button",
      { id: `open-${id}`, type: "button", className: "open", title, dir: "auto", onclick: () => this.actions.open(id) },
      title,
    );
    const rename = iconButton("pencil", `Rename ${title}`, () => this.#rename(item, id, title));
    const remove = iconButton("trash", `Delete ${title}`, () => this.actions.remove(id));
    rename.id = `rename-${id}`;
    remove.id = `remove-${id}`;
    if (id === current) open.setAttribute("aria-current", "true");
    if (writing) open.append(element("span", { className: "hidden" }, " (an answer is being written)"));
    const item = element("li", { className: writing ? "writing" : "" });
    item.append(open, rename, remove);
    return item;
  }

  /**
   * @param {HTMLLIElement} item
   * @param {string} id
   * @param {string} title
   */
  #rename(item, id, title) {
    const field = element("input", { className: "rename", value: title, dir: "auto", "aria-label": "Title" });
    const end = (/** @type {string} */ chosen) => {
      field.onblur = null; // Taking the field away would end it once more.
      this.actions.rename(id, chosen.trim() || title);
    };
    field.onblur = () => end(field.value);
    field.onkeydown = (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.stopPropagation();
      end(event.key === "Enter" ? field.value : title);
      document.getElementById(`rename-${id}`)?.focus();
    };
    item.replaceChildren(field);
    field.select();
  }
}
