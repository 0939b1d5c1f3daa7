/** The messages of a conversation on the page: who said what, and what can be done with it. */

import { statistics } from "./answer.js";
import { copyButton, element, fitHeight, icon, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";

/** @import { Vote } from "./api.js" */
/** @import { Conversation, Message } from "./conversations.js" */
/**
 * What the buttons of a message do; messages are named by their place in the conversation.
 * @typedef {object} Actions
 * @property {(index: number, text: string) => void} edit says it in other words, and asks again
 * @property {(index: number) => void} regenerate asks again for the last answer
 * @property {(index: number, vote: Vote) => Promise<boolean>} vote whether the vote was kept
 * @property {() => void} enterKey
 */
/** @typedef {{index: number, last: boolean, writing: boolean, votes: boolean}} State of a message in its conversation */

const NEAR_THE_END_PX = 80;

export class Thread {
  /** @type {MarkdownView | null} the answer that is being written */
  #writing = null;
  /** @type {string[]} what each message on the page was made from */
  #shown = [];

  /**
   * @param {HTMLElement} scroller what scrolls
   * @param {HTMLElement} place where the messages go
   * @param {Actions} actions
   */
  constructor(scroller, place, actions) {
    this.scroller = scroller;
    this.place = place;
    this.actions = actions;
  }

  /**
   * Shows a conversation. Messages that are there already stay, with the focus, the selection and what is being edited;
   * so does the place where the reader is, if it is not the end.
   * @param {Conversation} conversation
   * @param {{writing: boolean, votes: boolean}} state whether its last answer is being written; whether to ask for votes
   */
  show({ id, messages }, { writing, votes }) {
    const atEnd = this.isAtEnd();
    const states = messages.map((_, index) => {
      const last = index === messages.length - 1;
      return { index, last, writing: writing && last, votes };
    });
    const sources = messages.map((message, index) => JSON.stringify([id, message, states[index]]));
    let same = 0;
    while (same < sources.length && sources[same] === this.#shown[same] && !states[same].writing) same += 1;
    while (this.place.children.length > same) this.place.lastElementChild?.remove();
    this.place.append(...messages.slice(same).map((message, index) => this.#article(message, states[same + index])));
    this.#shown = sources;
    if (atEnd || same === 0) this.scrollToEnd();
  }

  /**
   * Shows what has come of the answer that is being written.
   * @param {Message} answer
   */
  grow(answer) {
    const atEnd = this.isAtEnd();
    this.#writing?.show(answer.content);
    if (atEnd) this.scrollToEnd();
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_THE_END_PX;
  }

  scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /**
   * Turns a message of the user into a field to change it in.
   * @param {number} index
   * @param {string} text
   */
  edit(index, text) {
    const article = this.place.children[index];
    const field = element("textarea", { className: "edit", value: text, dir: "auto", "aria-label": "Your message" });
    const before = [...article.childNodes];
    const cancel = () => {
      article.replaceChildren(...before);
      article.querySelector("button")?.focus();
    };
    const save = () => field.value.trim() && this.actions.edit(index, field.value.trim());
    field.oninput = () => fitHeight(field);
    field.onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        save();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      }
    };
    const buttons = element(
      "div",
      { className: "edit-buttons" },
      element("button", { type: "button", onclick: cancel }, "Cancel"),
      element("button", { type: "button", className: "primary", onclick: save }, "Send again"),
    );
    article.replaceChildren(field, buttons);
    fitHeight(field);
    field.focus();
  }

  /**
   * @param {Message} message
   * @param {State} state
   */
  #article(message, state) {
    const { index, last, writing } = state;
    if (message.role === "user") return this.#question(message, index);
    const body = element("div", { className: "body" });
    const view = new MarkdownView(body);
    view.show(message.content);
    const name = message.model ?? "Assistant";
    const article = element(
      "article",
      { className: "answer", "aria-label": `Answer by ${name}` },
      element("h2", { className: "name" }, name),
      body,
    );
    if (writing) {
      this.#writing = view;
      article.classList.add("writing");
      article.setAttribute("aria-busy", "true");
      return article;
    }
    if (message.error) article.append(this.#error(message.error, last ? index : null));
    if (message.content || !message.error) article.append(this.#answerButtons(message, state));
    return article;
  }

  /**
   * @param {Message} message
   * @param {number} index
   */
  #question(message, index) {
    return element(
      "article",
      { className: "question", "aria-label": "You" },
      element("div", { className: "bubble", dir: "auto" }, message.content),
      element(
        "div",
        { className: "buttons" },
        iconButton("pencil", "Edit this message", () => this.edit(index, message.content)),
        copyButton("Copy this message", () => message.content),
      ),
    );
  }

  /**
   * @param {Message} message
   * @param {State} state
   */
  #answerButtons(message, { index, last, votes }) {
    const made = [];
    if (message.content) made.push(copyButton("Copy this answer", () => message.content));
    if (last && !message.error) {
      made.push(iconButton("refresh", "Regenerate this answer", () => this.actions.regenerate(index)));
    }
    if (votes && message.content && message.model) made.push(...this.#voteButtons(message, index));
    const { short, long } = statistics(message);
    made.push(element("span", { className: "statistics", title: long }, short));
    return element("div", { className: "buttons" }, ...made);
  }

  /**
   * @param {Message} message
   * @param {number} index
   */
  #voteButtons(message, index) {
    const kinds = /** @type {const} */ ([
      ["up", "thumbUp", "A good answer"],
      ["down", "thumbDown", "A bad answer"],
    ]);
    const buttons = kinds.map(([vote, name, label]) => {
      const button = iconButton(name, label, async () => {
        if (await this.actions.vote(index, vote)) press(button);
      });
      button.setAttribute("aria-pressed", String(message.vote === vote));
      return button;
    });
    const press = (/** @type {HTMLButtonElement} */ pressed) => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    };
    return buttons;
  }

  /**
   * @param {NonNullable<Message["error"]>} error
   * @param {number | null} retry the answer to ask for again
   */
  #error({ message, detail, status }, retry) {
    const card = element("div", { className: "error", role: "alert" }, element("p", {}, message));
    if (detail) card.append(element("p", { className: "detail", dir: "auto" }, detail));
    if (status === 401) {
      card.append(element("button", { type: "button", onclick: () => this.actions.enterKey() }, "Enter an API key"));
    }
    if (retry !== null) {
      const again = { type: "button", className: "primary", onclick: () => this.actions.regenerate(retry) };
      card.append(element("button", again, icon("refresh"), "Try again"));
    }
    return card;
  }
}
