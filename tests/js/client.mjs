// The example client, as a web page: told with which tokens to connect and what to subscribe to, it tells
// what it gets, how that ends, and how many connections were tried.
import { HansardClient } from "/examples/hansard-client.js";
import { listen, say, settings } from "./page.mjs";

let connections = 0;
let arrivals = 0; // Frames on the last connection, dealt with or not.
let arrived; // Is called with each of them.
globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url);
    connections += 1;
    arrivals = 0;
    this.addEventListener("message", () => {
      arrivals += 1;
      arrived?.();
    });
    this.addEventListener("close", ({ code }) => say({ closed: code, connections }));
  }
};

let client;
listen(({ tokens, rooms }) => {
  client?.close();
  connections = 0;
  let asked = 0;
  client = new HansardClient({
    url: settings.ws,
    // One token after the other, and the last one again and again.
    token: typeof tokens === "string" ? tokens : () => tokens[Math.min(asked++, tokens.length - 1)],
    async onFrame(frame) {
      // Once, and not before so many frames have arrived: those after it wait meanwhile.
      const { connection, after } = frame.failure ?? {};
      if (connection === connections) {
        while (arrivals < after) await new Promise((resolve) => (arrived = resolve));
        throw new Error("the app can't deal with this now");
      }
      say({ frame });
    },
    onStartOver: ({ position, reason }) => say({ startedOver: position, reason }),
    onRefused: (code, reason) => say({ refused: code, reason, connections, asked }),
  });
  // JSON has no `undefined`, which stands for all rooms.
  for (const room of rooms) client.subscribe(room ?? undefined);
});
