// A client of Hansard's WebSocket that misses nothing: it comes back after every interruption and resumes
// where it was. For browsers and Node.js 22 or later; without dependencies; copy it and make it yours.
//
//     const client = new HansardClient({
//       url: "wss://chat.example/ws",
//       token: () => signIn(),                 // a fresh token, or a promise of one, or just a string
//       onFrame: (frame) => show(frame),       // everything the server sends, one frame after the other
//       onStartOver: (frame) => load(frame),   // nothing to resume from: read the history by HTTP
//       onRefused: (code, reason) => signOut(),
//     });
//     client.subscribe();                      // all rooms of the user, also those created later
//     client.subscribe(room);                  // or one room, or several
//
// The history must be read with the header `Hansard-Position: ${frame.position}`, so that it is not older
// than where the pushes begin. It may be newer: messages that it has may be pushed again.

// Close codes after which the same again would not help.
const UNAUTHORIZED = 4001;
const USER_DELETED = 4003;
// Refusals of a subscription that would be refused again.
const NOT_FOR_US = ["unknown_room", "not_a_member", "too_many_subscriptions", "invalid_message"];
// Milliseconds. A network can fall silent without a word, so silence is broken by a ping.
const SILENCE = 30_000;
const ANSWER = 10_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;

export class HansardClient {
  #options;
  #positions;
  #subscriptions = new Set(); // Of rooms; `undefined` stands for all of them.
  #socket; // The connection that counts; frames and the end of any other are nobody's business.
  #dealing = Promise.resolve(); // Settles when every frame so far has been dealt with.
  #timer;
  #attempts = 0;
  #refused = {}; // The last token that was refused, and why.
  #closed = false;

  // `positions` keeps how far each subscription got: anything with the methods get, set and delete of a
  // Map, of this client's own. An app that keeps it where it outlives the page (localStorage), must keep
  // there what it was told up to then, too.
  constructor({ positions = new Map(), ...options }) {
    this.#options = options;
    this.#positions = positions;
    this.#connect();
  }

  subscribe(room) {
    if (this.#subscriptions.has(room)) return;
    this.#subscriptions.add(room);
    this.#sendSubscription(room);
  }

  // The position stays: whoever subscribes again gets what was missed.
  unsubscribe(room) {
    if (this.#subscriptions.delete(room)) this.#send({ type: "unsubscribe", room });
  }

  close() {
    this.#closed = true;
    this.#abandon();
  }

  async #connect() {
    try {
      // A frame of the last connection may still be dealt with, and moves a position that is sent here.
      await this.#dealing;
      const { token } = this.#options;
      const fresh = typeof token === "function" ? await token() : token;
      if (this.#closed) return;
      if (fresh === this.#refused.token) this.#giveUp(UNAUTHORIZED, this.#refused.reason);
      else this.#open(fresh);
    } catch {
      this.#connectLater(); // No token now: the network may be away.
    }
  }

  #open(token) {
    const socket = (this.#socket = new WebSocket(this.#options.url));
    this.#watch(socket);
    socket.onopen = () => {
      // Browsers can't set headers on a WebSocket, and URLs end up in logs: the token is the first frame.
      this.#send({ type: "auth", token });
      for (const room of this.#subscriptions) this.#sendSubscription(room);
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#watch(socket);
      this.#dealing = this.#dealing
        .then(() => this.#deal(socket, JSON.parse(data)))
        // What the app could not deal with comes again after the next connect.
        .catch((error) => (console.error(error), this.#lost(socket)));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      if (code === UNAUTHORIZED) this.#refused = { token, reason }; // Another may do; not this one.
      if (code === USER_DELETED) this.#giveUp(code, reason);
      else this.#lost(socket);
    };
  }

  async #deal(socket, frame) {
    if (socket !== this.#socket) return; // Since lost: the next connection brings it again.
    const room = this.#subscriptions.has(frame.room) ? frame.room : undefined;
    const subscribed = frame.type === "subscribed";
    // Awaited, and pushes wait meanwhile: they may be in the history too, but never before it.
    if (subscribed && !frame.recovered) await this.#options.onStartOver?.(frame);
    await this.#options.onFrame?.(frame);
    if (frame.type === "error") {
      if (NOT_FOR_US.includes(frame.code)) this.#subscriptions.delete(frame.room);
      else if (frame.code !== "unauthorized") this.#lost(socket); // That one comes before a close.
      return;
    }
    if (!this.#subscriptions.has(room)) return; // Unsubscribed since.
    if (frame.type === "room deleted" && room) {
      this.#subscriptions.delete(room);
      this.#positions.delete(key(room));
    } else if (frame.position && !(subscribed && frame.recovered)) {
      // Only now, when the app has the frame. The position of `subscribed` with `recovered` is that of the
      // replay's end, which is still to come; `replayed` then moves on past events of no concern.
      // Rooms are replayed one by one, so each has its own position; all rooms together have one.
      this.#positions.set(key(room), frame.position);
      this.#attempts = 0;
    }
  }

  #sendSubscription(room) {
    const after = this.#positions.get(key(room)) ?? undefined;
    this.#send({ type: "subscribe", room, after });
  }

  #send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #watch(socket) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#send({ type: "ping" });
      this.#timer = setTimeout(() => this.#lost(socket), ANSWER);
    }, SILENCE);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#abandon();
    this.#connectLater();
  }

  // A dead connection takes long to close, so its end is not waited for.
  #abandon() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
  }

  // At random within a time that doubles: thousands of clients that lost the same server must not come
  // back at the same moment.
  #connectLater() {
    if (this.#closed) return;
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), Math.random() * longest);
  }

  #giveUp(code, reason) {
    this.close();
    this.#options.onRefused?.(code, reason);
  }
}

function key(room) {
  return room ?? "all rooms";
}
