/** Conversations as they are kept in this browser, and as JSON lines in scaletrain's format `messages`. */

/** @import { ChatMessage, Usage, Vote } from "./api.js" */

/**
 * A message with what was noted of it: the model that answered, its tokens, how long they took, why the answer ended,
 * what went wrong, what the reader thought of it.
 * @typedef {ChatMessage & {
 *   model?: string, usage?: Usage, firstTokenS?: number, writingS?: number, finish?: string,
 *   stopped?: boolean, error?: {message: string, detail: string, status: number}, vote?: Vote,
 * }} Message
 */
/** @typedef {{id: string, title: string, updated: number, system: string, messages: Message[]}} Conversation */

const PREFIX = "scaletrain.conversation.";
const TITLE_LENGTH = 60;

/** The conversations of this browser, each under its own key, so that two tabs do not write over one another's. */
export class ConversationStore {
  /** @type {Map<string, Conversation>} */
  #kept = new Map();

  /** @param {Storage} storage */
  constructor(storage) {
    this.storage = storage;
    for (const key of Object.keys(storage)) if (key.startsWith(PREFIX)) this.#read(key);
  }

  /** @returns {Conversation[]} the one that was changed last comes first */
  list() {
    return [...this.#kept.values()].sort((left, right) => right.updated - left.updated);
  }

  /** @param {string} id */
  get(id) {
    return this.#kept.get(id);
  }

  /**
   * Keeps a conversation as it is now. Throws QuotaExceededError where the browser's storage is full.
   * @param {Conversation} conversation
   */
  save(conversation) {
    this.#kept.set(conversation.id, conversation);
    this.storage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
  }

  /** @param {string} id */
  remove(id) {
    this.#kept.delete(id);
    this.storage.removeItem(PREFIX + id);
  }

  /**
   * Follows what other tabs do, but for a conversation that is being written in this one.
   * @param {{isOurs: (id: string) => boolean, changed: (id: string) => void}} how
   */
  follow({ isOurs, changed }) {
    addEventListener("storage", ({ key, newValue }) => {
      if (!key?.startsWith(PREFIX)) return;
      const id = key.slice(PREFIX.length);
      if (isOurs(id)) return;
      if (newValue === null) this.#kept.delete(id);
      else this.#read(key);
      changed(id);
    });
  }

  /** @param {string} key */
  #read(key) {
    const conversation = JSON.parse(this.storage.getItem(key) ?? "null");
    if (conversation) this.#kept.set(conversation.id, conversation);
  }
}

/**
 * @param {string} system the system prompt, empty for none
 * @param {Message[]} messages
 * @returns {Conversation}
 */
export function newConversation(system = "", messages = []) {
  // crypto.randomUUID would ask for https.
  const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, title: titleOf(messages), updated: Date.now(), system, messages };
}

/**
 * The beginning of the first message.
 * @param {Message[]} messages
 */
export function titleOf(messages) {
  const text = messages.find(({ role }) => role === "user")?.content.trim().replace(/\s+/g, " ") ?? "";
  const characters = [...text];
  return characters.length > TITLE_LENGTH ? `${characters.slice(0, TITLE_LENGTH).join("")}…` : text || "New chat";
}

/**
 * A conversation as a model gets it. A message that got no answer at all, but for the last, is left out: most chat
 * templates want the roles to take turns.
 * @param {string} system
 * @param {Message[]} messages
 * @returns {ChatMessage[]}
 */
export function asSent(system, messages) {
  const answered = messages.filter(({ role, content }, index) => {
    const next = messages[index + 1];
    return role === "assistant" ? content : !next || (next.role === "assistant" && next.content);
  });
  const spoken = answered.map(({ role, content }) => ({ role, content }));
  return system.trim() ? [{ role: "system", content: system }, ...spoken] : spoken;
}

/**
 * One line for each conversation in which something was answered; a last message without an answer is left out.
 * @param {Conversation[]} conversations
 */
export function toJsonLines(conversations) {
  const lines = [];
  for (const { system, messages } of conversations) {
    const sent = asSent(system, messages);
    while (sent.length && sent[sent.length - 1].role !== "assistant") sent.pop();
    if (sent.length) lines.push(`${JSON.stringify({ messages: sent })}\n`);
  }
  return lines.join("");
}

/**
 * Reads what `toJsonLines` wrote, or any JSON lines of the format `messages`; a line that is none is named.
 * @param {string} text
 * @returns {{conversations: Conversation[], problems: string[]}}
 */
export function fromJsonLines(text) {
  const conversations = [];
  const problems = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    try {
      conversations.push(fromJson(JSON.parse(line)));
    } catch (error) {
      const problem = error instanceof SyntaxError ? "not JSON" : /** @type {Error} */ (error).message;
      problems.push(`line ${index + 1}: ${problem}`);
    }
  }
  return { conversations, problems };
}

/** @param {any} row */
function fromJson(row) {
  if (!Array.isArray(row?.messages) || !row.messages.length) throw new Error('no list "messages"');
  for (const [index, message] of row.messages.entries()) {
    if (!["system", "user", "assistant"].includes(message?.role)) throw new Error(`no such role: ${message?.role}`);
    if (message.role === "system" && index > 0) throw new Error("a system message that is not the first");
    if (typeof message.content !== "string") throw new Error('a message without a text "content"');
  }
  const [first, ...others] = row.messages;
  const spoken = first.role === "system" ? others : row.messages;
  const messages = spoken.map((/** @type {ChatMessage} */ { role, content }) => ({ role, content }));
  return newConversation(first.role === "system" ? first.content : "", messages);
}
