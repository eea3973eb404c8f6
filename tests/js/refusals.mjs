// Clients that are refused, as a web page: told from outside what to do, it tells how that ends and how
// many connections were tried.
import { HansardClient } from "/examples/hansard-client.js";
import { listen, say, settings } from "./page.mjs";

let connections = 0;
globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url);
    connections += 1;
    this.addEventListener("close", ({ code }) => say({ closed: code, connections }));
  }
};

let client;
listen(({ tokens }) => {
  client?.close();
  connections = 0;
  let asked = 0;
  client = new HansardClient({
    url: settings.ws,
    // One token after the other, and the last one again and again.
    token: typeof tokens === "string" ? tokens : () => tokens[Math.min(asked++, tokens.length - 1)],
    onFrame: (frame) => say({ frame }),
    onRefused: (code, reason) => say({ refused: code, reason, connections, asked }),
  });
  client.subscribe(settings.room);
});
