// An event stream read from a fetch: its data, event by event. Comments, names and ids are of no use here.

/** The data of each event of a body. Ends with the body; an event that it cuts off is none. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      rest += value;
      // A CR at the very end may be half of a CR LF.
      const complete = rest.endsWith("\r") ? rest.length - 1 : rest.length;
      const lines = rest.slice(0, complete).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(complete);
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening stops the stream
  }
}
