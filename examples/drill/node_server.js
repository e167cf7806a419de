// The probe application on Node's http: node node_server.js PORT [graceful]
//
// The same paths and the same ledger as lastcall.drill.probe; no dependency. Without `graceful`
// nobody handles SIGTERM, as in most programs; with it, server.close() ends the listener, lets the
// requests in hand finish, and Node exits when nothing is left to do.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const { setTimeout: sleep } = require("node:timers/promises");

const [port, mode] = process.argv.slice(2);
const ledger = process.env.LASTCALL_LEDGER
  ? fs.openSync(process.env.LASTCALL_LEDGER, "a", 0o600) // O_APPEND: lines never mix
  : null;

function note(key, step) {
  if (key && ledger !== null) fs.writeSync(ledger, `${key} ${step}\n`);
}

function pay(key) {
  note(key, "begun");
  note(key, "paid");
}

function order(key) {
  note(key, "ordered");
}

function answer(response, status, text) {
  response.writeHead(status, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

async function stream(path, key, waitMs, pieces, response) {
  const line = (text) => (path === "/events" ? `data: ${text}\n\n` : `${text}\n`);
  const body = Array.from({ length: pieces }, (_, i) => line(`piece ${String(i + 1).padStart(6, "0")}`));
  const last = line(`done ${key}`.trim());
  const headers = { "Content-Type": path === "/events" ? "text/event-stream" : "text/plain" };
  if (path === "/length") headers["Content-Length"] = Buffer.byteLength(body.join("") + last);
  pay(key);
  response.writeHead(200, headers);
  for (const piece of body) {
    await sleep(waitMs / pieces);
    response.write(piece);
  }
  order(key);
  response.end(last);
}

async function handle(request, response) {
  const url = new URL(request.url, "http://localhost");
  const key = url.searchParams.get("key") ?? "";
  const waitMs = 1000 * Number(url.searchParams.get("s") ?? 0);
  const pieces = Number(url.searchParams.get("n") ?? 10);
  if (!/^[A-Za-z0-9._:-]{0,200}$/.test(key) || !(waitMs >= 0 && waitMs <= 3.6e6) || !(pieces >= 1 && pieces <= 1e5)) {
    return answer(response, 400, "key, s or n makes no sense\n");
  }
  let taken = 0;
  for await (const chunk of request) taken += chunk.length;
  switch (url.pathname) {
    case "/":
    case "/health":
      return answer(response, 200, "ok\n");
    case "/fast":
    case "/slow":
    case "/poll":
    case "/upload":
      pay(key);
      if (url.pathname === "/slow" || url.pathname === "/poll") await sleep(waitMs);
      order(key);
      return answer(response, 200, url.pathname === "/upload" ? `${taken}\n` : `${`done ${key}`.trim()}\n`);
    case "/stream":
    case "/length":
    case "/events":
      return stream(url.pathname, key, waitMs, Math.floor(pieces), response);
    default:
      return answer(response, 404, "no such path\n");
  }
}

const server = http.createServer((request, response) => {
  handle(request, response).catch(() => response.destroy()); // the client left in the middle
});
if (mode === "graceful") process.on("SIGTERM", () => server.close());
setTimeout(
  () => server.listen(Number(port), "127.0.0.1", () => console.log(`ready (pid: ${process.pid})`)),
  1000 * Number(process.env.LASTCALL_SLOW_BOOT || 0),
);
