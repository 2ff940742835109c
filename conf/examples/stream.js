// A streaming client for the browser: fetch, a reader of events, and a button that stops the model.

const base = new URLSearchParams(location.search).get("base") ?? "http://127.0.0.1:8080/v1";
const [form, stop, answer, state] = ["ask", "stop", "answer", "state"].map((id) => document.getElementById(id));
let controller = null;

/** The data of each event of a streamed answer, as it comes. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      const lines = (rest + piece.value).split(/\r\n|\n|\r(?!$)/);  // a CR at the end may be half of a line's end
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } finally {
    reader.cancel().catch(() => {});  // where it was left early: lets the connection go
  }
}

async function ask(model, question, signal) {
  const response = await fetch(`${base}/chat/completions`, {
    method: "POST",
    headers: {"content-type": "application/json"},  // and authorization, where the proxy has keys
    body: JSON.stringify({model, stream: true, messages: [{role: "user", content: question}]}),
    signal,
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  let isWhole = false;
  for await (const data of events(response)) {
    isWhole ||= data === "[DONE]";
    if (isWhole) continue;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    answer.textContent += event.choices[0]?.delta.content ?? "";  // text, never markup
  }
  if (!isWhole) throw new Error("The answer ended before it was whole.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  controller?.abort();
  const mine = controller = new AbortController();
  answer.textContent = "";
  state.textContent = "";
  stop.disabled = false;
  try {
    await ask(form.model.value, form.question.value, mine.signal);
    state.textContent = "done";
  } catch (error) {
    state.textContent = mine.signal.aborted ? "stopped" : error.message;
  }
  if (mine === controller) stop.disabled = true;
});

stop.addEventListener("click", () => controller?.abort());  // closes the connection: the proxy sees its client leave
