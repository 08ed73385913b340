// One run of load against one Worker, by autocannon. The last line of its output is the result, as JSON.
//
//   node load.mjs '{"port": 8801, "path": "/…", "amount": 3000, "tokens": "FILE", "from": 0, "count": 1, "host": null}'
//
// FILE holds a token a line; the run goes round the `count` tokens from number `from` on, one a request. `host` is what
// requests say in Host, where that isn't the address. With `form`, a text, requests are POSTs of that and the token behind it, as a form. The result is {"seconds", "p50", "p99"} (the latter in milliseconds), or {"error"} when an answer was anything but 200.
import { readFileSync } from "node:fs";
import autocannon from "autocannon";

const { port, path, amount, tokens, from, count, host, form } = JSON.parse(process.argv[2]);
const pool = readFileSync(tokens, "utf8").split("\n").slice(from, from + count);
const headers = {
  ...(host && { host }),
  "user-agent": "python-requests/2.32.5",
  accept: "*/*",
  "accept-encoding": "gzip, deflate",
  "airgate-dag-id": "finance_month_end",
  "airgate-task-id": "post_entries",
  "airgate-run-id": "scheduled__2026-10-31T00:00:00+00:00",
  "airgate-try-number": "1",
};

const latencies = [];
let next = 0;
let error;
const started = performance.now();
const run = autocannon({
  url: `http://127.0.0.1:${port}`,
  connections: Math.min(8, amount),
  amount,
  timeout: 30,
  requests: [
    {
      method: form ? "POST" : "GET",
      path,
      setupRequest: (request) => {
        const token = pool[next++ % pool.length];
        return form
          ? { ...request, headers: { ...headers, "content-type": "application/x-www-form-urlencoded" }, body: form + token }
          : { ...request, headers: { ...headers, authorization: `Bearer ${token}` } };
      },
      onResponse(status, body) {
        if (status !== 200) error ??= `answered ${status}: ${body.slice(0, 300)}`;
      },
    },
  ],
});
let ended = started;
run.on("response", (client, status, bytes, milliseconds) => {
  latencies.push(milliseconds);
  ended = performance.now();
});
run.on("reqError", (failure) => (error ??= failure.message));
const { errors } = await run;
const seconds = (ended - started) / 1000;
if (!error && (errors || latencies.length !== amount)) error = `${latencies.length} of ${amount} requests answered`;

latencies.sort((a, b) => a - b);
const percentile = (share) => latencies[Math.ceil(latencies.length * share) - 1];
console.log(JSON.stringify(error ? { error } : { seconds, p50: percentile(0.5), p99: percentile(0.99) }));
