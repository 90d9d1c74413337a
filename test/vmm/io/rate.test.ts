import assert from "node:assert/strict";
import { test } from "node:test";
import { Rate } from "../../../src/vmm/io/rate.ts";
import { random } from "./timed-devices.ts";

const RATES = [1_193_182, 3_579_545, 32_768];

test("conversion agrees with exact integers over the whole range of virtual time", () => {
  const next = random(7);
  for (const hz of RATES) {
    const rate = new Rate(hz);
    for (let i = 0; i < 2000; i++) {
      const ns = i < 100 ? i * 417 : Math.floor((next(0xffffffff) / 0xffffffff) * 2 ** (20 + (i % 34)));
      const ticks = Number((BigInt(ns) * BigInt(hz)) / 1_000_000_000n);
      assert.equal(rate.ticksAt(ns), ticks);
      const time = rate.timeOf(ticks);
      assert.equal(time, Number((BigInt(ticks) * 1_000_000_000n + BigInt(hz) - 1n) / BigInt(hz)));
      assert.equal(rate.ticksAt(time), ticks);
      if (time > 0) assert.equal(rate.ticksAt(time - 1), ticks - 1);
    }
  }
});

test("a rate whose products are not exact is refused", () => {
  assert.throws(() => new Rate(14_318_180), RangeError);
  assert.throws(() => new Rate(0), RangeError);
});
