// Asks before something is stopped or changed.

import {byId} from "./dom.js";

let answer = null;

/** Ask; resolves to `{reason}`, or to null if it is to be left. */
export function confirm({title, text, yes, withReason = false}) {
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  byId("ask-reason").value = "";
  byId("ask-reason-line").hidden = !withReason;
  answer?.(null);
  byId("ask").showModal();
  (withReason ? byId("ask-reason") : byId("ask-yes")).focus();
  return new Promise((resolve) => {
    answer = (found) => {
      answer = null;
      byId("ask").close();
      resolve(found);
    };
  });
}

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answer?.({reason: byId("ask-reason").value.trim()});
});
byId("ask-no").addEventListener("click", () => answer?.(null));
byId("ask").addEventListener("cancel", (event) => {
  event.preventDefault();
  answer?.(null);
});
