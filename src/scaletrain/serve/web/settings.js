/** What the reader chose: the model, how answers are sampled, the key, the colours; and the dialog to choose in. */

import { byId, icon } from "./dom.js";

/** @import { Parameters } from "./api.js" */

const KEY = "scaletrain.key";
const MODEL = "scaletrain.model";
const PARAMETERS = "scaletrain.parameters";
const THEME = "scaletrain.theme";
/** The fields that hold numbers, by their ids, and what the API calls them. */
const NUMBERS = /** @type {const} */ ({
  temperature: "temperature",
  "top-p": "top_p",
  "max-tokens": "max_tokens",
  seed: "seed",
});

/** @returns {Parameters} those that were set; the server has its own values for the others */
export function readParameters() {
  return JSON.parse(localStorage.getItem(PARAMETERS) ?? "{}");
}

/** The key stays in this tab, and goes when it is closed. */
export function readKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function readModel() {
  return localStorage.getItem(MODEL) ?? "";
}

/** @param {string} model */
export function chooseModel(model) {
  localStorage.setItem(MODEL, model);
}

/** The dialog with the system prompt, the parameters and the key. */
export class SettingsDialog {
  /**
   * @param {{systemChanged: (text: string) => void, keyChanged: () => void}} actions
   */
  constructor({ systemChanged, keyChanged }) {
    this.dialog = byId("settings", HTMLDialogElement);
    this.system = byId("system", HTMLTextAreaElement);
    this.key = byId("key", HTMLInputElement);
    this.system.oninput = () => systemChanged(this.system.value);
    this.key.value = readKey();
    this.key.onchange = () => {
      sessionStorage.setItem(KEY, this.key.value.trim());
      keyChanged();
    };
    byId("reset-parameters", HTMLButtonElement).onclick = () => this.#reset();
    for (const field of this.#numbers()) field.oninput = () => this.#keep();
    this.#fill();
  }

  /**
   * @param {string} system the system prompt of the conversation
   * @param {"system" | "key"} [field] where to begin
   */
  open(system, field = "system") {
    this.system.value = system;
    this.dialog.showModal();
    this[field].focus();
  }

  #numbers() {
    return Object.keys(NUMBERS).map((id) => byId(id, HTMLInputElement));
  }

  #fill() {
    const parameters = readParameters();
    for (const field of this.#numbers()) field.value = String(parameters[nameOf(field)] ?? "");
  }

  #reset() {
    localStorage.removeItem(PARAMETERS);
    this.#fill();
    this.#keep();
  }

  /** Keeps every number that is right; beside one that is not stands what would be. */
  #keep() {
    /** @type {Parameters} */
    const parameters = {};
    for (const field of this.#numbers()) {
      const right = field.checkValidity();
      field.setAttribute("aria-invalid", String(!right));
      byId(`${field.id}-problem`, HTMLElement).textContent = right ? "" : problemOf(field);
      if (right && field.value !== "") parameters[nameOf(field)] = field.valueAsNumber;
    }
    localStorage.setItem(PARAMETERS, JSON.stringify(parameters));
  }
}

/** @param {HTMLInputElement} field */
function nameOf(field) {
  return NUMBERS[/** @type {keyof typeof NUMBERS} */ (field.id)];
}

/** @param {HTMLInputElement} field */
function problemOf({ min, max, step }) {
  const kind = step === "1" ? "a whole number" : "a number";
  return max ? `Give ${kind} from ${min} to ${max}.` : `Give ${kind}, ${min} or more.`;
}

/** Makes a button switch between light and dark; until then the page follows the device. */
export function switchThemeWith(/** @type {HTMLButtonElement} */ button) {
  const device = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : device.matches);
  const show = () => {
    const label = isDark() ? "Switch to light colours" : "Switch to dark colours";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.replaceChildren(icon(isDark() ? "sun" : "moon"));
  };
  button.onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem(THEME, root.dataset.theme);
    show();
  };
  device.addEventListener("change", show);
  show();
}
