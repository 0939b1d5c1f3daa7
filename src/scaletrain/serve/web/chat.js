/** The conversations of the page: one is shown, several can be written at once, all are kept in this browser. */

import { writeAnswer } from "./answer.js";
import { ConversationStore, asSent, newConversation, titleOf } from "./conversations.js";
import { byId, icon } from "./dom.js";
import { announce, notify } from "./notices.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

/** @import { Api, Parameters, Vote } from "./api.js" */
/** @import { Conversation, Message } from "./conversations.js" */
/**
 * @typedef {object} Choices what the reader chose elsewhere on the page
 * @property {() => string} model empty while there is none
 * @property {() => Parameters} parameters
 * @property {() => void} enterKey opens the place to enter an API key
 */

const SAVE_EVERY_MS = 1000;

export class Chat {
  /** @type {Map<string, AbortController>} what stops the answers that are being written, by conversation */
  #writing = new Map();
  #votes = false;

  /**
   * @param {Api} api
   * @param {Choices} choices
   */
  constructor(api, choices) {
    this.api = api;
    this.choices = choices;
    this.store = new ConversationStore(localStorage);
    this.current = this.store.list()[0] ?? newConversation();
    this.field = byId("message", HTMLTextAreaElement);
    this.send = byId("send", HTMLButtonElement);
    this.sidebar = new Sidebar({
      open: (id) => this.open(id),
      rename: (id, title) => this.change(this.#kept(id), { title }),
      remove: (id) => this.remove(id),
    });
    this.thread = new Thread(byId("scroller", HTMLElement), byId("messages", HTMLElement), {
      edit: (index, text) => this.goBack(index, { role: "user", content: text }),
      regenerate: (index) => this.goBack(index),
      vote: (index, vote) => this.vote(index, vote),
      enterKey: choices.enterKey,
    });
    this.store.follow({
      isOurs: (id) => this.#writing.has(id),
      changed: (id) => this.#otherTabChanged(id),
    });
  }

  get isWriting() {
    return this.#writing.has(this.current.id);
  }

  /** Whether to ask for votes. */
  set votes(/** @type {boolean} */ asked) {
    this.#votes = asked;
    this.show();
  }

  /** Shows the current conversation, and the list. */
  show() {
    const { title, messages } = this.current;
    document.title = messages.length ? `${title} · scaletrain` : "scaletrain chat";
    byId("welcome", HTMLElement).hidden = messages.length > 0;
    this.thread.show(this.current, { writing: this.isWriting, votes: this.#votes });
    const label = this.isWriting ? "Stop the answer" : "Send";
    this.send.title = label;
    this.send.setAttribute("aria-label", label);
    this.send.replaceChildren(icon(this.isWriting ? "stop" : "send"));
    this.#showList();
  }

  startNew() {
    this.current = newConversation(this.current.system);
    this.sidebar.makeWay();
    this.show();
    this.field.focus();
  }

  /** @param {string} id */
  open(id) {
    this.current = this.#kept(id);
    this.show();
    if (!this.sidebar.makeWay()) this.field.focus();
  }

  /** @param {string} id */
  remove(id) {
    const removed = this.#kept(id);
    this.#writing.get(id)?.abort();
    this.store.remove(id);
    if (this.current.id === id) this.current = this.store.list()[0] ?? newConversation();
    this.show();
    byId("new", HTMLButtonElement).focus();
    notify(`“${removed.title}” is deleted.`, () => this.#restore(removed));
  }

  /**
   * Sends a message.
   * @param {string} text
   * @returns {boolean} whether it was sent
   */
  say(text) {
    if (!text.trim() || !this.#canSend()) return false;
    const conversation = this.current;
    conversation.messages.push({ role: "user", content: text.trim() });
    if (conversation.messages.length === 1) conversation.title = titleOf(conversation.messages);
    this.#answer(conversation);
    return true;
  }

  /**
   * Takes back everything from a message on, puts another in its place or none, and asks for an answer.
   * @param {number} index
   * @param {Message[]} instead
   */
  goBack(index, ...instead) {
    if (!this.#canSend()) return;
    const conversation = this.current;
    const before = structuredClone(conversation);
    const taken = conversation.messages.splice(index, Infinity, ...instead);
    if (taken.some(({ role, content }) => role === "assistant" && content)) {
      notify("What was answered here before is replaced.", () => this.#restore(before));
    }
    this.send.focus();
    this.#answer(conversation);
  }

  regenerate() {
    const last = this.current.messages.length - 1;
    if (this.current.messages[last]?.role === "assistant") this.goBack(last);
  }

  editLast() {
    const index = this.current.messages.findLastIndex(({ role }) => role === "user");
    if (index !== -1 && !this.isWriting) this.thread.edit(index, this.current.messages[index].content);
  }

  stop() {
    this.#writing.get(this.current.id)?.abort();
  }

  /** Ends what is being written, as far as it came, since the page is left. */
  leave() {
    for (const [id, abort] of this.#writing) {
      const conversation = this.#kept(id);
      conversation.messages[conversation.messages.length - 1].stopped = true;
      this.save(conversation);
      abort.abort();
    }
  }

  /**
   * @param {number} index
   * @param {Vote} vote
   * @returns {Promise<boolean>} whether the server has it
   */
  async vote(index, vote) {
    const conversation = this.current;
    const answer = conversation.messages[index];
    const messages = asSent(conversation.system, conversation.messages.slice(0, index));
    try {
      await this.api.vote({ model: answer.model ?? "", messages, answer: answer.content, vote });
    } catch (error) {
      notify(`The vote was not kept. ${/** @type {Error} */ (error).message}`);
      return false;
    }
    answer.vote = vote;
    this.save(conversation);
    announce("Thank you for the vote.");
    return true;
  }

  /**
   * @param {Conversation} conversation
   * @param {Partial<Conversation>} changes
   */
  change(conversation, changes) {
    Object.assign(conversation, changes);
    if (this.#isKept(conversation)) this.save(conversation);
    this.#showList();
  }

  /** @param {Conversation} conversation */
  save(conversation) {
    try {
      this.store.save(conversation);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      notify("The browser has no room to keep this conversation: export, and delete what you no longer need.");
    }
  }

  /**
   * Lets the model answer, shows the answer where its conversation is on the page, and keeps it.
   * @param {Conversation} conversation
   */
  async #answer(conversation) {
    const abort = new AbortController();
    this.#writing.set(conversation.id, abort);
    conversation.updated = Date.now();
    this.save(conversation);
    const answer = await writeAnswer(this.api, conversation, {
      model: this.choices.model(),
      parameters: this.choices.parameters(),
      signal: abort.signal,
      onStart: () => this.show(),
      onChange: this.#follower(conversation, abort),
    });
    if (this.#writing.get(conversation.id) === abort) this.#writing.delete(conversation.id);
    if (!this.#isKept(conversation)) return; // It was deleted, or put back to what it was before.
    conversation.updated = Date.now();
    this.save(conversation);
    if (this.current !== conversation) this.#showList();
    else this.#showEnd(answer);
  }

  /**
   * What happens whenever more of an answer has come: the page shows it with its next frame, and it is kept now and then.
   * @param {Conversation} conversation
   * @param {AbortController} abort
   */
  #follower(conversation, abort) {
    let savedMs = performance.now();
    let waiting = false;
    return (/** @type {Message} */ answer) => {
      if (performance.now() - savedMs > SAVE_EVERY_MS && this.#isKept(conversation)) {
        this.save(conversation);
        savedMs = performance.now();
      }
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const shown = this.current === conversation && this.#writing.get(conversation.id) === abort;
        if (shown) this.thread.grow(answer);
      });
    };
  }

  /** @param {Message} answer */
  #showEnd(answer) {
    this.show();
    if (answer.stopped) announce("Stopped.");
    else if (!answer.error) announce(`Answer: ${answer.content}`);
  }

  /** @param {Conversation} conversation */
  #restore(conversation) {
    this.#writing.get(conversation.id)?.abort();
    this.#writing.delete(conversation.id);
    this.current = conversation;
    this.save(conversation);
    this.show();
  }

  #canSend() {
    if (this.isWriting) return false;
    if (!this.choices.model()) notify("There is no model to send this to yet.");
    return Boolean(this.choices.model());
  }

  #showList() {
    this.sidebar.show(this.store.list(), { current: this.current.id, writing: (id) => this.#writing.has(id) });
  }

  /** @param {string} id */
  #kept(id) {
    return this.store.get(id) ?? this.current;
  }

  /** @param {Conversation} conversation */
  #isKept(conversation) {
    return this.store.get(conversation.id) === conversation;
  }

  /** @param {string} id */
  #otherTabChanged(id) {
    if (id === this.current.id) this.current = this.store.get(id) ?? newConversation();
    this.show();
  }
}
