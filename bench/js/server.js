// The socket.io server that Hansard is measured beside: its defaults, rooms, and nothing else. It listens on
// PORT of the loopback address. GET /collect frees what can be freed; GET /sockets counts the connections.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => {
  // socket.io answers its own path.
  if (request.url === "/collect") {
    global.gc();
    response.end();
  } else if (request.url === "/sockets") {
    response.end(String(io.engine.clientsCount));
  } else if (!request.url.startsWith("/socket.io/")) {
    response.writeHead(404).end();
  }
});
const io = new Server(server);

io.on("connection", (socket) => {
  socket.on("subscribe", (room) => {
    socket.join(room);
    socket.emit("subscribed", { room });
  });
  // A message without its storage: socket.io has none.
  socket.on("post", (room, message) => {
    io.to(room).emit("new message", { message });
  });
});

server.listen(Number(process.env.PORT), "127.0.0.1");
