// The tutorial's two people, as its readers write them: log in over HTTP, connect, say who one is, open a
// room, subscribe to it together with the other, and talk. Arguments: URL, version, transports (comma-separated,
// or "default"), and the ids of the two. Ends by itself.
import { args, require, say } from "../harness.mjs";

const [url, version, transports, ada, grace] = args;
const io = require(`socket.io-client-${version}`).connect;

const next = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

async function request(method, path, token, body) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${path}: ${JSON.stringify(json)}`);
  return json;
}

async function enter(user) {
  const { authorization } = await request("POST", `/login/${user}`);
  const options = { forceNew: true };
  if (transports !== "default") options.transports = transports.split(",");
  const socket = io(url, options);
  await next(socket, "connect");
  const known = next(socket, "authenticated");
  socket.emit("identity", user);
  await known;
  return { token: authorization, socket };
}

const first = await enter(ada);
const second = await enter(grace);
const { chatRoom } = await request("POST", "/room/initiate", first.token, {
  userIds: [grace],
  type: "consumer-to-consumer",
});
const room = chatRoom.chatRoomId;

// Grace does nothing: Ada subscribes for both.
const subscribed = [next(first.socket, "subscribed"), next(second.socket, "subscribed")];
first.socket.emit("subscribe", room, grace);
await Promise.all(subscribed);
const told = [next(first.socket, "new message"), next(second.socket, "new message")];
const { post } = await request("POST", `/room/${room}/message`, second.token, { messageText: "Hello!" });
const messages = (await Promise.all(told)).map(({ message }) => message);

// Who leaves is told nothing more.
let heard = 0;
second.socket.on("new message", () => heard++);
const left = next(second.socket, "unsubscribed");
second.socket.emit("unsubscribe", room);
await left;
const toFirst = next(first.socket, "new message");
await request("POST", `/room/${room}/message`, first.token, { messageText: "Anybody there?" });
await toFirst;
// What had been on its way to her would have come before this answer.
const answered = next(second.socket, "error");
second.socket.emit("subscribe", "no room");
await answered;
say({ post, messages, heard, transport: first.socket.io.engine.transport.name });
process.exit();
