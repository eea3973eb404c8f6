// A chat as a web page that shows one of the user's rooms, made with the example client: the messages in the order in which
// they came, whatever happened to the server in between.
import { HansardClient } from "/examples/hansard-client.js";
import { listen, say, settings } from "./page.mjs";

const { api, ws, token, room } = settings;
const list = document.querySelector("ol");
let newestOfHistory = "";
let wanted; // The message that the test waits for.

function show(post) {
  const item = document.createElement("li");
  item.id = post.postId ?? post._id;
  item.textContent = post.message.messageText;
  list.append(item);
  answer();
}

function answer() {
  if (wanted === undefined || (list.lastElementChild?.id ?? "") < wanted) return;
  wanted = undefined;
  const messages = [...list.children].map(({ id, textContent: text }) => ({ id, text }));
  say({ messages });
}

// All that is there, at least up to where the pushes begin.
async function loadHistory({ position }) {
  const posts = [];
  for (;;) {
    const before = posts.length > 0 ? `&before=${posts[0]._id}` : "";
    const answer = await fetch(`${api}/room/${room}?limit=100${before}`, {
      headers: { authorization: `Bearer ${token}`, "hansard-position": position },
    });
    if (!answer.ok) throw new Error(`the history: ${answer.status}`);
    const { conversation } = await answer.json();
    if (conversation.length === 0) break;
    posts.unshift(...conversation);
  }
  list.replaceChildren();
  posts.forEach(show);
  newestOfHistory = posts.at(-1)?._id ?? "";
}

const client = new HansardClient({
  url: ws,
  token: () => token,
  // A map that lives as long as the browser's profile.
  positions: {
    get: (name) => localStorage.getItem(name),
    set: (name, position) => localStorage.setItem(name, position),
    delete: (name) => localStorage.removeItem(name),
  },
  onFrame(frame) {
    if (frame.type !== "new message") say({ frame });
    else if (frame.room === room && frame.message.postId > newestOfHistory) show(frame.message);
  },
  async onStartOver(frame) {
    await loadHistory(frame);
    say({ startedOver: frame.reason ?? null });
  },
  onRefused: (code, reason) => say({ refused: code, reason }),
});
client.subscribe();

listen(({ until }) => {
  wanted = until;
  answer();
});
