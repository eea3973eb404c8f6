// Socket.IO clients of all versions that do what the test tells them and say all that they hear.
//
// Told: {"connect": NAME, "url", "version": 2 | 3 | 4, "transports": [..] | null, "token"?, "after"?,
// "by"?: "query", "greet"?: [[EVENT, ARGUMENT..]..]}; what is in `greet` is emitted after each connect, also
// after those that the client makes by itself, and then the client resumes after the last position that it
// has heard. {"emit": NAME, "event": [EVENT, ARGUMENT..]}, {"close": NAME}.
// Says: {"client": NAME, "event", "arguments"}; the client's own events are connect, disconnect and refused.
import { args, listen, require, say } from "../harness.mjs";

const clients = new Map();

function connect({ connect: name, url, version, transports, token, after, by, greet = [] }) {
  let last = after;
  const handshake = () => {
    const values = {};
    if (token !== undefined) values.token = token;
    if (last !== undefined) values.after = last;
    return values;
  };
  const options = { forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, timeout: 5000 };
  if (transports) options.transports = transports;
  const byQuery = version === 2 || by === "query";
  if (byQuery) options.query = handshake();
  else options.auth = (callback) => callback(handshake());
  const socket = require(`socket.io-client-${version}`).connect(url, options);
  const heard = (event, ...values) => say({ client: name, event, arguments: values });

  if (byQuery) {
    // The manager takes its options anew for each attempt.
    const manager = socket.io;
    (version === 2 ? socket : manager).on("reconnect_attempt", () => {
      manager.opts.query = handshake();
    });
  }
  socket.on("connect", () => {
    heard("connect", socket.io.engine.transport.name);
    for (const event of greet) socket.emit(...event);
  });
  socket.on("disconnect", (reason) => heard("disconnect", reason));
  // A refused handshake; with version 2 it is the event "error" with a string, while the server's own event
  // of that name brings an object.
  socket.on("connect_error", (error) => heard("refused", error.message));
  if (version === 2) {
    socket.on("error", (error) => {
      if (typeof error === "string") heard("refused", error);
    });
  }
  // All versions hand each event of the server to this method.
  const onevent = socket.onevent;
  socket.onevent = function (packet) {
    const [event, ...values] = packet.data;
    const position = values[0]?.position;
    // A subscription that resumes names the end of what it is about to send again.
    const ahead = event === "subscribed" && values[0].recovered;
    if (greet.length > 0 && typeof position === "string" && !ahead) last = position;
    heard(event, ...values);
    onevent.call(this, packet);
  };
  clients.set(name, socket);
}

listen((told) => {
  if (told.connect) connect(told);
  if (told.emit) clients.get(told.emit).emit(...told.event);
  if (told.close) clients.get(told.close).close();
});
say({ started: args });
