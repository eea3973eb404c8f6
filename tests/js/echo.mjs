// The harness's own test: says what it was started with and which packages it can load, then repeats
// what it is told.
import { args, listen, require, say } from "./harness.mjs";

const packages = ["socket.io-client-2", "socket.io-client-3", "socket.io-client-4"];
const versions = packages.map((name) => require(`${name}/package.json`).version);
const usable = packages.every((name) => typeof require(name).connect === "function");
say({ args, versions, usable });
listen((told) => {
  if (told.fail) throw new Error(told.fail);
  say({ told });
});
