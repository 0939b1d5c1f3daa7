/** What the page and the widget ask of the server: its models, streamed answers, votes; errors in plain words. */

/** @typedef {{role: "system" | "user" | "assistant", content: string}} ChatMessage */
/** @typedef {{temperature?: number, top_p?: number, max_tokens?: number, seed?: number}} Parameters */
/** @typedef {{model: string, messages: ChatMessage[]} & Parameters} ChatRequest */
/** @typedef {{prompt_tokens: number, completion_tokens: number}} Usage */
/** @typedef {{text: string, finish?: string, usage?: Usage}} Piece new text, the reason of the end, the tokens used */
/** @typedef {"up" | "down"} Vote */

/**
 * Statuses of errors that come in mid-stream, when the status of the answer has been sent, by their code.
 * @type {Record<string, number>}
 */
const STATUS_OF_CODE = { overloaded: 429, engine_failed: 503, shutting_down: 503, timeout: 504 };
const UNREACHABLE = "The server cannot be reached. Is it running, and is this device online?";
const BROKEN = "The connection broke before the answer was finished.";

/** A request that failed; `message` is for the reader, `detail` is the server's own words, `status` is 0 without one. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, detail?: string}} [more]
   */
  constructor(message, { status = 0, detail = "" } = {}) {
    super(message);
    this.status = status;
    this.detail = detail === message ? "" : detail;
  }
}

export class Api {
  /**
   * @param {URL} home where the server is, ending in a slash
   * @param {() => string} key the API key to send, empty for none
   */
  constructor(home, key) {
    this.home = home;
    this.key = key;
  }

  /** @returns {Promise<string[]>} the names of the models */
  async models() {
    const answer = await (await this.#ask("v1/models")).json();
    return answer.data.map((/** @type {{id: string}} */ model) => model.id);
  }

  /** @returns {Promise<{feedback: boolean}>} what the page may show; of a server without such settings: nothing */
  async settings() {
    try {
      const answer = await (await this.#ask("v1/scaletrain/settings")).json();
      return { feedback: answer.feedback === true };
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return { feedback: false };
      throw error;
    }
  }

  /**
   * The answer to a conversation, piece by piece. Aborting the signal closes the connection, which ends generation.
   * @param {ChatRequest} request
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Piece>}
   */
  async *stream(request, signal) {
    const response = await this.#ask("v1/chat/completions", {
      body: { ...request, stream: true, stream_options: { include_usage: true } },
      signal,
    });
    let finished = false;
    for await (const data of serverSentEvents(response)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) {
        const status = STATUS_OF_CODE[event.error.code] ?? 500;
        throw new ApiError(inWords(status), { status, detail: event.error.message });
      }
      const choice = event.choices?.[0];
      finished ||= Boolean(choice?.finish_reason);
      yield { text: choice?.delta?.content ?? "", finish: choice?.finish_reason, usage: event.usage ?? undefined };
    }
    if (!finished) throw new ApiError(BROKEN);
  }

  /** @param {{model: string, messages: ChatMessage[], answer: string, vote: Vote}} feedback */
  async vote(feedback) {
    await this.#ask("v1/feedback", { body: feedback });
  }

  /**
   * @param {string} path
   * @param {{body?: object, signal?: AbortSignal}} [request] GET without a body
   * @returns {Promise<Response>}
   */
  async #ask(path, { body, signal } = {}) {
    const key = this.key();
    /** @type {Record<string, string>} */
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
    const response = await fetch(new URL(path, this.home), options).catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(UNREACHABLE);
    });
    if (response.ok) return response;
    const detail = await response.json().then(
      (answer) => String(answer.error?.message ?? ""),
      () => "",
    );
    const again = Number(response.headers.get("Retry-After"));
    throw new ApiError(inWords(response.status, { detail, again, key }), { status: response.status, detail });
  }
}

/**
 * The `data` of each event of a stream, one after the other (HTML Living Standard, section 9.2.6).
 * @param {Response} response
 * @returns {AsyncGenerator<string>}
 */
export async function* serverSentEvents(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new ApiError(BROKEN);
      });
      if (done) return;
      // A carriage return at the end may be half of a line's end: it waits for what follows.
      const lines = (waiting + value).split(/\r\n|\n|\r(?!$)/);
      waiting = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // The connection may be gone already, which is what is wanted.
  }
}

/**
 * What a status means for the reader, and what to do.
 * @param {number} status
 * @param {{detail?: string, again?: number, key?: string}} [more] `again`: seconds until a retry makes sense
 */
function inWords(status, { detail = "", again = 0, key = "" } = {}) {
  if (status === 401) return key ? "The server does not accept this API key." : "This server asks for an API key.";
  if (status === 413) return "This is too much text for the server. Shorten the message, or start a new conversation.";
  if (status === 429) return `The server cannot take this now.${again ? ` Try again in ${again} s.` : ""}`;
  if (status === 503) return "The server is starting, stopping or out of order. Try again in a moment.";
  if (status === 504) return "The answer took too long. Try again, or ask for a shorter one.";
  if (status >= 500) return "The server failed to answer. Try again.";
  return detail || `The server refused the request (status ${status}).`;
}
