// The ring of messages to a machine's thread: order, wrapping, a full ring, the doorbell.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { MailboxReceiver, MailboxSender, PAYLOAD_MAX } from "../../src/host/mailbox.ts";
import { Random } from "../devices/fakes.ts";

test("messages come out whole and in order, whatever their lengths", () => {
  const sender = new MailboxSender();
  const receiver = new MailboxReceiver(sender.memory);
  const random = new Random(3);
  const waiting: { kind: number; payload: Uint8Array }[] = [];
  let refused = 0;
  for (let step = 0; step < 3000; step++) {
    if (random.below(2) === 0) {
      const message = {
        kind: random.below(5),
        payload: random.bytes(random.below(random.below(10) === 0 ? 30_000 : 600)),
      };
      if (sender.trySend(message.kind, message.payload)) waiting.push(message);
      else refused++;
    } else assert.deepEqual(receiver.take(), waiting.shift());
  }
  for (const message of waiting) assert.deepEqual(receiver.take(), message);
  assert.equal(receiver.take(), undefined);
  assert.ok(refused > 0);
});

test("the longest message fits the empty ring, and no more", () => {
  const sender = new MailboxSender();
  const receiver = new MailboxReceiver(sender.memory);
  assert.ok(sender.trySend(1, new Uint8Array(PAYLOAD_MAX)));
  assert.ok(!sender.trySend(1, new Uint8Array(0)));
  assert.throws(() => sender.trySend(1, new Uint8Array(PAYLOAD_MAX + 1)), RangeError);
  assert.equal(receiver.take()?.payload.length, PAYLOAD_MAX);
});

test("send waits for room", async () => {
  const sender = new MailboxSender();
  const receiver = new MailboxReceiver(sender.memory);
  sender.trySend(1, new Uint8Array(PAYLOAD_MAX));
  let done = false;
  const sent = sender.send(2, Uint8Array.of(9)).then(() => {
    done = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(!done);
  receiver.take();
  await sent;
  assert.deepEqual(receiver.take(), { kind: 2, payload: Uint8Array.of(9) });
});

test("the doorbell changes with messages and acknowledgements, and wakes a sleeper", { timeout: 20_000 }, async () => {
  const sender = new MailboxSender();
  const receiver = new MailboxReceiver(sender.memory);
  const bell = receiver.bell();
  sender.consumed(5);
  assert.notEqual(receiver.bell(), bell);
  assert.equal(receiver.consumed(), 5);
  // With a doorbell that has rung already there is no sleep.
  receiver.wait(bell, 10_000);
  const source = `
    import { workerData, parentPort } from "node:worker_threads";
    const { MailboxReceiver } = await import(workerData.module);
    const receiver = new MailboxReceiver(workerData.memory);
    const bell = receiver.bell();
    parentPort.postMessage("asleep");
    receiver.wait(bell, 15_000);
    parentPort.postMessage(receiver.take().kind);`;
  const module = new URL("../../src/host/mailbox.ts", import.meta.url).href;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
    workerData: { memory: sender.memory, module },
  });
  const answers: unknown[] = [];
  worker.on("message", (answer) => {
    answers.push(answer);
    if (answer === "asleep") setTimeout(() => sender.trySend(7, new Uint8Array(0)), 50);
  });
  await new Promise((resolve) => worker.on("exit", resolve));
  assert.deepEqual(answers, ["asleep", 7]);
});
