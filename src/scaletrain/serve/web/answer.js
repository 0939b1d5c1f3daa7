/** The writing of one answer: asks the server, and puts what comes into a message as it comes. */

import { ApiError } from "./api.js";
import { asSent } from "./conversations.js";

/** @import { Api, Parameters } from "./api.js" */
/** @import { Conversation, Message } from "./conversations.js" */

/**
 * Writes the answer to a conversation into a new message at its end. Nothing is thrown: what went wrong is noted in
 * the message, beside what had come until then.
 * @param {Api} api
 * @param {Conversation} conversation
 * @param {object} how
 * @param {string} how.model
 * @param {Parameters} how.parameters
 * @param {AbortSignal} how.signal ends the answer where it is
 * @param {() => void} how.onStart the message is there, empty still
 * @param {(answer: Message) => void} how.onChange more has come
 * @returns {Promise<Message>}
 */
export async function writeAnswer(api, conversation, { model, parameters, signal, onStart, onChange }) {
  const request = { model, messages: asSent(conversation.system, conversation.messages), ...parameters };
  /** @type {Message} */
  const answer = { role: "assistant", content: "", model };
  conversation.messages.push(answer);
  onStart();
  const started = performance.now();
  try {
    for await (const { text, finish, usage } of api.stream(request, signal)) {
      const elapsedS = (performance.now() - started) / 1000;
      if (text) {
        answer.firstTokenS ??= elapsedS;
        answer.writingS = elapsedS - answer.firstTokenS;
        answer.content += text;
      }
      if (finish) answer.finish = finish;
      if (usage) answer.usage = { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens };
      onChange(answer);
    }
  } catch (error) {
    if (signal.aborted) answer.stopped = true;
    else answer.error = noted(error);
  }
  return answer;
}

/** @param {unknown} error */
function noted(error) {
  if (error instanceof ApiError) return { message: error.message, detail: error.detail, status: error.status };
  return { message: "The server's answer could not be read.", detail: String(error), status: 0 };
}

/**
 * What is said below an answer: its tokens and their speed. The speed is that of writing: the first token, which also
 * waited for its turn and for the prompt to be read, is left out of it.
 * @param {Message} answer
 * @returns {{short: string, long: string}} `long` has the parts that `short` leaves out
 */
export function statistics({ usage, firstTokenS, writingS, model, stopped, finish }) {
  const parts = [];
  const more = [];
  if (stopped) parts.push("stopped");
  if (usage) {
    const tokens = usage.completion_tokens;
    parts.push(`${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`);
    if (tokens > 1 && writingS) parts.push(`${((tokens - 1) / writingS).toFixed(1)} tokens/s`);
    more.push(`prompt of ${usage.prompt_tokens.toLocaleString()} tokens`);
  }
  if (finish === "length") parts.push("ended by the limit on its length");
  if (firstTokenS !== undefined) more.push(`first token after ${firstTokenS.toFixed(2)} s`);
  if (model) more.push(model);
  return { short: parts.join(" · "), long: more.join(", ") };
}
