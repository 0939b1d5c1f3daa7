/** The chat that the widget opens on a site: one conversation, kept while the visitor's tab is open. */

import { writeAnswer } from "./answer.js";
import { Api } from "./api.js";
import { newConversation } from "./conversations.js";
import { element, fitHeight, icon, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";

/** @import { Message } from "./conversations.js" */
/**
 * What the attributes data-... of the script tag say.
 * @typedef {object} Options
 * @property {string} title
 * @property {string} [model] without it: the server's first
 * @property {string} [greeting] what the chat says first; the model does not see it
 * @property {string} [key] an API key, which every visitor can read
 * @property {string} [system] what the model is told before each conversation
 * @property {string} [maxTokens] the longest answer
 * @property {string} [temperature] 0: always the likeliest word; the server's default without it
 * @property {string} [color] of buttons, as #rrggbb
 */

const FAILED = "The chat is not available at the moment.";

export class Panel {
  /** @type {AbortController | null} */
  #writing = null;
  #model = "";

  /**
   * @param {URL} home
   * @param {Options} options
   * @param {HTMLButtonElement} launcher
   */
  constructor(home, options, launcher) {
    this.options = options;
    this.launcher = launcher;
    this.api = new Api(home, () => options.key ?? "");
    this.place = `scaletrain.widget.${home.href}`;
    this.conversation = newConversation(options.system, this.#kept());
    this.log = element("div", { className: "log", tabIndex: 0, role: "region", "aria-label": "Conversation" });
    this.announcements = element("div", { className: "hidden", role: "status" });
    const label = { rows: 1, dir: "auto", placeholder: "Write a message", "aria-label": "Message" };
    this.field = element("textarea", label);
    this.send = element("button", { type: "submit", className: "send" });
    this.root = this.#build();
    this.#show();
  }

  toggle(open = this.root.hidden) {
    this.root.hidden = !open;
    this.launcher.hidden = open;
    this.launcher.setAttribute("aria-expanded", String(open));
    if (open) this.field.focus();
    else this.launcher.focus();
    this.log.scrollTop = this.log.scrollHeight;
  }

  #build() {
    const form = element("form", {}, this.field, this.send);
    form.onsubmit = (event) => {
      event.preventDefault();
      if (this.#writing) this.#writing.abort();
      else this.#say();
    };
    this.field.oninput = () => fitHeight(this.field);
    this.field.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#say();
    };
    const head = element(
      "div",
      { className: "head" },
      element("h2", { dir: "auto" }, this.options.title),
      iconButton("refresh", "New conversation", () => this.#startNew()),
      iconButton("close", "Close", () => this.toggle(false)),
    );
    const hint = element("p", { className: "hint" }, "A language model answers here. It can be wrong.");
    const properties = { className: "panel", hidden: true, role: "dialog", "aria-label": this.options.title };
    const root = element("div", properties, head, this.log, form, hint, this.announcements);
    root.onkeydown = (event) => {
      event.stopPropagation(); // What is typed here is no shortcut of the site.
      if (event.key !== "Escape") return;
      if (this.#writing) this.#writing.abort();
      else this.toggle(false);
    };
    this.#colour(root);
    return root;
  }

  /** The site's colour, with black or white text on it, whichever can be read better. @param {HTMLElement} root */
  #colour(root) {
    const { color } = this.options;
    if (!color) return;
    if (!/^#[0-9a-f]{6}$/i.test(color)) {
      console.error(`data-color="${color}" is not used: give a colour as #rrggbb`);
      return;
    }
    for (const part of [root, this.launcher]) {
      part.style.setProperty("--accent-fill", color);
      part.style.setProperty("--on-accent-fill", luminance(color) > 0.179 ? "#000000" : "#ffffff");
    }
  }

  #startNew() {
    this.#writing?.abort();
    this.conversation = newConversation(this.options.system);
    this.#keep();
    this.#show();
    this.field.focus();
  }

  #say() {
    const content = this.field.value.trim();
    if (!content || this.#writing) return;
    this.conversation.messages.push({ role: "user", content });
    this.field.value = "";
    fitHeight(this.field);
    this.#answer();
  }

  async #answer() {
    const { conversation } = this;
    const abort = new AbortController();
    this.#writing = abort;
    const { maxTokens, temperature } = this.options;
    /** @type {MarkdownView | undefined} */
    let view;
    this.#show();
    try {
      this.#model ||= this.options.model || (await this.api.models())[0];
    } catch {
      // The question itself meets the same error, and says so.
    }
    const answer = await writeAnswer(this.api, conversation, {
      model: this.#model,
      parameters: {
        ...(maxTokens && { max_tokens: Number(maxTokens) }),
        ...(temperature && { temperature: Number(temperature) }),
      },
      signal: abort.signal,
      onStart: () => (view = this.#show()),
      onChange: ({ content }) => {
        if (this.conversation !== conversation) return;
        const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
        view?.show(content);
        if (atEnd) this.log.scrollTop = this.log.scrollHeight;
      },
    });
    if (this.conversation !== conversation) return; // A new one was begun meanwhile.
    this.#writing = null;
    if (answer.error) console.error(answer.error.message, answer.error.detail);
    this.#keep();
    this.#show();
    this.announcements.textContent = answer.error ? FAILED : answer.content;
  }

  /** @returns {MarkdownView | undefined} of the last answer */
  #show() {
    const { messages } = this.conversation;
    const parts = [];
    /** @type {MarkdownView | undefined} */
    let view;
    if (this.options.greeting) parts.push(element("article", { className: "answer", dir: "auto" }, this.options.greeting));
    for (const [index, message] of messages.entries()) {
      if (message.role === "user") {
        parts.push(element("article", { className: "question", dir: "auto", "aria-label": "You" }, message.content));
        continue;
      }
      const body = element("div", { className: "body" });
      view = new MarkdownView(body);
      view.show(message.content);
      const article = element("article", { className: "answer", "aria-label": "Answer" }, body);
      const last = index === messages.length - 1;
      if (last && this.#writing) article.classList.add("writing");
      if (message.error) article.append(this.#error(last));
      parts.push(article);
    }
    this.log.replaceChildren(...parts);
    this.log.scrollTop = this.log.scrollHeight;
    this.send.setAttribute("aria-label", this.#writing ? "Stop the answer" : "Send");
    this.send.replaceChildren(icon(this.#writing ? "stop" : "send"));
    return view;
  }

  /** @param {boolean} last */
  #error(last) {
    const card = element("div", { className: "error", role: "alert" }, element("p", {}, FAILED));
    const again = () => {
      this.conversation.messages.pop();
      this.send.focus(); // The button that had the focus goes.
      this.#answer();
    };
    if (last) card.append(element("button", { type: "button", onclick: again }, "Try again"));
    return card;
  }

  /** @returns {Message[]} */
  #kept() {
    return JSON.parse(sessionStorage.getItem(this.place) ?? "[]");
  }

  #keep() {
    sessionStorage.setItem(this.place, JSON.stringify(this.conversation.messages));
  }
}

/**
 * The relative luminance of a colour (WCAG 2.2); text on it is black above 0.179, where both contrasts are the same.
 * @param {string} colour as #rrggbb
 */
function luminance(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const share = parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
