// How a page's script talks with the test that opened it. See tests/src/browser.rs.

/** What the test said the script should do. */
export const settings = JSON.parse(document.getElementById("settings").textContent);

let reports = Promise.resolve();

/** Tells the test something; in order. */
export function say(object) {
  const report = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(object),
  };
  reports = reports.then(() => fetch("/report", report));
}

/** Calls `handle` with each thing that the test tells. */
export async function listen(handle) {
  for (let number = 0; ; number += 1) {
    const answer = await fetch(`/orders/${number}`);
    await handle(await answer.json());
  }
}
