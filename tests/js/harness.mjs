// How a script talks with the test that runs it: a JSON object a line, both ways. See tests/src/node.rs.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

/** Loads a package of package.json, which is installed outside the source tree. */
export const require = createRequire(`${process.env.HANSARD_TEST_JS}/`);

/** The arguments that the test gave. */
export const args = process.argv.slice(2);

/** Tells the test something. */
export function say(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

/** Calls `handle` with each thing that the test tells. */
export function listen(handle) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => handle(JSON.parse(line)));
  // The test has gone; nothing may outlive it.
  lines.on("close", () => process.exit());
}
