/** The chat page: finds out what the server offers, and lets the buttons and keys of the page do their work. */

import { Api, ApiError } from "./api.js";
import { Chat } from "./chat.js";
import { fromJsonLines, toJsonLines } from "./conversations.js";
import { byId, element, fitHeight, icon } from "./dom.js";
import { notify } from "./notices.js";
import { SettingsDialog, chooseModel, readKey, readModel, readParameters, switchThemeWith } from "./settings.js";

/** @import { Conversation } from "./conversations.js" */
/** @import { IconName } from "./dom.js" */

function start() {
  const api = new Api(new URL(".", document.baseURI), readKey);
  const model = byId("model", HTMLSelectElement);
  /** @type {SettingsDialog} */
  let settings;
  const chat = new Chat(api, {
    model: () => model.value,
    parameters: readParameters,
    enterKey: () => settings.open(chat.current.system, "key"),
  });
  let connected = Promise.resolve();
  /** @returns {Promise<void>} */
  const connect = () => (connected = connectTo(api, chat, model, connect));
  settings = new SettingsDialog({
    systemChanged: (system) => chat.change(chat.current, { system }),
    keyChanged: connect,
  });
  for (const place of document.querySelectorAll("[data-icon]")) {
    place.prepend(icon(/** @type {IconName} */ (place.getAttribute("data-icon"))));
  }
  model.onchange = () => chooseModel(model.value);
  switchThemeWith(byId("theme", HTMLButtonElement));
  listenToButtons(chat, settings);
  listenToMessageBox(chat, () => connected);
  listenToShortcuts(chat, settings);
  addEventListener("pagehide", () => chat.leave());
  chat.show();
  chat.field.focus();
  connect();
}

/**
 * Asks the server for its models; without them nothing can be sent.
 * @param {Api} api
 * @param {Chat} chat
 * @param {HTMLSelectElement} model
 * @param {() => void} again tries once more
 */
async function connectTo(api, chat, model, again) {
  const problem = byId("problem", HTMLElement);
  try {
    const models = await api.models();
    model.replaceChildren(...models.map((name) => element("option", { value: name }, name)));
    if (models.includes(readModel())) model.value = readModel();
    chat.votes = (await api.settings()).feedback;
    problem.replaceChildren();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const wantsKey = error.status === 401;
    const act = wantsKey ? chat.choices.enterKey : again;
    const button = element("button", { type: "button", onclick: act }, wantsKey ? "Enter an API key" : "Try again");
    problem.replaceChildren(element("p", {}, error.message), button);
  }
}

/**
 * @param {Chat} chat
 * @param {SettingsDialog} settings
 */
function listenToButtons(chat, settings) {
  const file = byId("import-file", HTMLInputElement);
  file.onchange = async () => {
    if (file.files?.[0]) await importFrom(chat, file.files[0]);
    file.value = "";
  };
  byId("import", HTMLButtonElement).onclick = () => file.click();
  byId("export", HTMLButtonElement).onclick = () => exportAll(chat.store.list());
  byId("new", HTMLButtonElement).onclick = () => chat.startNew();
  byId("open-settings", HTMLButtonElement).onclick = () => settings.open(chat.current.system);
  byId("open-shortcuts", HTMLButtonElement).onclick = showShortcuts;
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("button.close")?.addEventListener("click", () => dialog.close());
  }
  const jump = byId("jump", HTMLButtonElement);
  jump.onclick = () => chat.thread.scrollToEnd();
  chat.thread.scroller.onscroll = () => (jump.hidden = chat.thread.isAtEnd());
}

/**
 * @param {Chat} chat
 * @param {() => Promise<void>} connected settles once the models are known, or why they are not: a message waits for it
 */
function listenToMessageBox(chat, connected) {
  const { field } = chat;
  const say = async () => {
    await connected();
    if (chat.say(field.value)) field.value = "";
    fitHeight(field);
  };
  field.oninput = () => fitHeight(field);
  field.onkeydown = (event) => {
    if (event.isComposing) return; // Enter takes a word of an input method.
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      say();
    } else if (event.key === "ArrowUp" && !field.value) {
      event.preventDefault();
      chat.editLast();
    }
  };
  byId("composer", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    if (chat.isWriting) chat.stop();
    else say();
  };
}

/**
 * With Alt, since single letters are in the way of those who speak to their device; by the place of the key, since Alt
 * makes other letters on a Mac.
 * @param {Chat} chat
 * @param {SettingsDialog} settings
 */
function listenToShortcuts(chat, settings) {
  /** @type {Record<string, () => void>} */
  const shortcuts = {
    KeyN: () => chat.startNew(),
    KeyR: () => chat.regenerate(),
    KeyM: () => chat.field.focus(),
    KeyL: () => chat.sidebar.toggle(),
    KeyP: () => settings.open(chat.current.system),
    Slash: showShortcuts,
  };
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") chat.stop();
    if (!event.altKey || !(event.code in shortcuts)) return;
    event.preventDefault();
    shortcuts[event.code]();
  });
}

function showShortcuts() {
  byId("shortcuts", HTMLDialogElement).showModal();
}

/** @param {Conversation[]} conversations */
function exportAll(conversations) {
  const text = toJsonLines(conversations);
  if (!text) {
    notify("There is no answered conversation to export yet.");
    return;
  }
  const address = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  element("a", { href: address, download: "conversations.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/**
 * @param {Chat} chat
 * @param {File} file
 */
async function importFrom(chat, file) {
  const { conversations, problems } = fromJsonLines(await file.text());
  // The first line becomes the newest, so that it stands first in the list too.
  const now = Date.now();
  for (const [index, conversation] of conversations.entries()) {
    conversation.updated = now - index;
    chat.save(conversation);
  }
  if (conversations.length) chat.open(conversations[0].id);
  const count = conversations.length === 1 ? "1 conversation" : `${conversations.length} conversations`;
  notify([`${file.name}: ${count} imported.`, ...problems].join("\n"));
}

/** The storage of the browser, or a line on what to do without it. */
function storageIsOpen() {
  try {
    return Boolean(localStorage && sessionStorage);
  } catch {
    const text = "This page keeps conversations in the browser's storage, which is blocked here. Allow it, and reload.";
    byId("problem", HTMLElement).textContent = text;
    return false;
  }
}

if (storageIsOpen()) start();
