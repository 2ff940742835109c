// The configuration in force, secrets masked, and the reload.

import {get, reload} from "./api.js";
import {byId, make, put, say} from "./dom.js";
import {confirm} from "./dialog.js";

export class ConfigView {
  constructor() {
    byId("reload").addEventListener("click", () => this.#reload());
  }

  async open() {
    byId("config-problems").replaceChildren();
    try {
      const {toml, version} = await get("/admin/config");
      put(byId("toml"), toml);
      put(byId("config-word"), `trioproxy ${version}. What is in force now, with the defaults; secrets are not shown.`);
    } catch (error) {
      say(error.message, true);
    }
  }

  close() {}

  async #reload() {
    const answer = await confirm({
      title: "Reload the configuration?",
      text: "It is checked first. New workers take new requests, the old ones end when their streams have ended.",
      yes: "Reload",
    });
    if (answer === null) return;
    try {
      const problems = await reload();
      await this.open();
      byId("config-problems").replaceChildren(...problems.map((problem) => make("li", {}, problem)));
      say(problems.length ? "Refused: nothing was changed." : "Reloaded.", problems.length > 0);
    } catch (error) {
      say(error.message, true);
    }
  }
}
