// Calls each route of a server with the official Node library of OpenAI. testdata/serve.py runs it.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const { default: OpenAI } = await import(pathToFileURL(process.env.OPENAI).href);
const client = new OpenAI({ baseURL: process.env.SERVER + "/v1", apiKey: "a-key", maxRetries: 0 });
assert.deepEqual((await client.models.list()).data.map(m => m.id), ["demo", "stars", "things"]);

const d = await client.post("/decisions", { body: {
  model: "stars", input: "The waiters were rude and the soup was cold.",
  questions: [{ type: "choice", instructions: "?", choices: [{ value: "five stars" }, { value: "one star" }] }],
} });
assert.equal(d.answers[0].choice, "one star");
if (client.decisions) {
  const same = await client.decisions.create({
    model: "stars", input: "The waiters were rude and the soup was cold.", questions: [{ type: "score", instructions: "?", levels: [{ label: "one star" }, { label: "five stars" }] }],
  });
  assert(Math.abs(same.answers[0].score - d.answers[0].probabilities[0].probability) < 1e-12);
}

const body = { model: "demo", prompt: "The", max_tokens: 20, temperature: 0 };
const { choices: [{ text }] } = await client.completions.create(body);
let streamed = "";
for await (const part of await client.completions.create({ ...body, stream: true })) streamed += part.choices[0].text;
assert(text.length > 0);
assert.equal(streamed, text);

const chat = { model: "demo", messages: [{ role: "user", content: "Say something." }], max_tokens: 10, temperature: 0 };
const whole = await client.chat.completions.create(chat);
let said = "", usage;
for await (const part of await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } })) {
  said += part.choices[0]?.delta.content ?? "";
  usage = part.usage ?? usage;
}
assert.equal(said, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);

await assert.rejects(client.completions.create({ ...body, model: "none" }), e => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
await assert.rejects(client.completions.create({ ...body, best_of: 3 }), e => e.status === 400 && e.param === "best_of");
const stop = new AbortController();
const long = await client.completions.create({ ...body, max_tokens: 400, temperature: 2, stream: true }, { signal: stop.signal });
for await (const _ of long) stop.abort();
console.log("openai for Node: models, decisions, completions, chats, streaming, errors and cancelling work");
