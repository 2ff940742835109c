// Asks the admin address. Nothing is kept here but the session's token, which every change has to show.

const SESSION = "/admin/session";
const PATIENCE_MS = 10_000;

let token = null;
let whenShut = () => {};

/** The admin address said no, or did not answer; `status` is 0 where there was no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Calls back whenever an answer shows that nobody is logged in any more. */
export function onShut(callback) {
  whenShut = callback;
}

async function ask(method, path, body) {
  const headers = {};
  if (method !== "GET" && token !== null) headers["x-csrf-token"] = token;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Refused(0, "The admin address does not answer.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && path !== SESSION) whenShut();
  throw new Refused(answer.status, await messageOf(answer));
}

async function messageOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The admin address answered with ${answer.status}.`;
  }
}

/** The JSON at a path. */
export async function get(path) {
  return (await ask("GET", path)).json();
}

/** The text at a path. */
export async function text(path) {
  return (await ask("GET", path)).text();
}

/** What the session is: `{needs_key, is_open}`. */
export async function session() {
  const found = await get(SESSION);
  token = found.csrf;
  return found;
}

/** Log in with the admin key. */
export async function logIn(key) {
  token = (await (await ask("POST", SESSION, {key})).json()).csrf;
}

export async function logOut() {
  await ask("DELETE", SESSION);
  token = null;
}

/** Stop a stream, for everyone who reads it. */
export async function stopStream(id, reason) {
  const query = reason ? `?${new URLSearchParams({reason})}` : "";
  await ask("DELETE", `/admin/streams/${encodeURIComponent(id)}${query}`);
}

/** Put the configuration into force as it is now; what is wrong with it otherwise, as a list. */
export async function reload() {
  const headers = token === null ? {} : {"x-csrf-token": token};
  const answer = await fetch("/admin/reload", {method: "POST", headers});
  if (answer.status === 401) whenShut();
  if (answer.status !== 200 && answer.status !== 409) throw new Refused(answer.status, await messageOf(answer));
  return (await answer.json()).problems;
}
