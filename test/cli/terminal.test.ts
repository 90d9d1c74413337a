// The escape key, and a terminal that is given back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EscapeFilter, rawMode } from "../../src/cli/terminal.ts";

const typed = (filter: EscapeFilter, text: string): { text: string; quit: boolean; help: boolean } => {
  const { bytes, quit, help } = filter.take(Buffer.from(text, "latin1"));
  return { text: Buffer.from(bytes).toString("latin1"), quit, help };
};

test("Ctrl-a x quits, Ctrl-a h helps, Ctrl-a a and Ctrl-a Ctrl-a are Ctrl-a", () => {
  const filter = new EscapeFilter();
  assert.deepEqual(typed(filter, "ls\r"), { text: "ls\r", quit: false, help: false });
  assert.deepEqual(typed(filter, "a\x01x"), { text: "a", quit: true, help: false });
  assert.deepEqual(typed(filter, "\x01X"), { text: "", quit: true, help: false });
  assert.deepEqual(typed(filter, "\x01h\x01?b"), { text: "b", quit: false, help: true });
  assert.deepEqual(typed(filter, "\x01a\x01\x01\x01A"), { text: "\x01\x01\x01", quit: false, help: false });
  assert.deepEqual(typed(filter, "\x01zq"), { text: "q", quit: false, help: false });
});

test("the key and what follows it may come apart", () => {
  const filter = new EscapeFilter();
  assert.deepEqual(typed(filter, "\x01"), { text: "", quit: false, help: false });
  assert.deepEqual(typed(filter, "x"), { text: "", quit: true, help: false });
  assert.deepEqual(typed(filter, "x\x03\x1b[A\xff"), { text: "x\x03\x1b[A\xff", quit: false, help: false });
});

test("raw mode is for terminals, and is put back once, also when the process exits", () => {
  const calls: boolean[] = [];
  const input = { isTTY: true, setRawMode: (raw: boolean) => calls.push(raw) };
  const before = process.listenerCount("exit");
  const restore = rawMode(input);
  assert.equal(process.listenerCount("exit"), before + 1);
  restore();
  restore();
  assert.deepEqual(calls, [true, false]);
  assert.equal(process.listenerCount("exit"), before);
  rawMode({ isTTY: false, setRawMode: (raw: boolean) => calls.push(raw) })();
  rawMode({})();
  assert.deepEqual(calls, [true, false]);
});
