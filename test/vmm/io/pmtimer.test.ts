// ACPI 6.4, 4.8.3.3.

import assert from "node:assert/strict";
import { test } from "node:test";
import { PmTimer } from "../../../src/vmm/io/pmtimer.ts";
import { restoreState, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { Bench } from "./timed-devices.ts";

function create(bench: Bench, bits: 24 | 32, carried?: () => void): PmTimer {
  const { clock, timers, anomalies } = bench;
  return new PmTimer({ clock, timers, anomalies, port: 0x608, bits, carried });
}

test("counts at 3.579545 MHz without drift, in 24 or 32 bits", () => {
  const bench = new Bench();
  const narrow = create(bench, 24);
  const wide = create(bench, 32);
  assert.deepEqual(uncoveredFields(narrow), []);
  bench.advance(1_000_000_000);
  assert.equal(wide.readPort(0x608, 4), 3_579_545);
  bench.advance(999_999 * 1_000_000_000);
  assert.equal(wide.readPort(0x608, 4), Number((3_579_545n * 1_000_000n) & 0xffffffffn));
  assert.equal(narrow.readPort(0x608, 4), Number((3_579_545n * 1_000_000n) & 0xffffffn));
  assert.equal(narrow.readPort(0x60b, 1), 0);
  const bytes = [0, 1, 2, 3].map((i) => wide.readPort(0x608 + i, 1) * 2 ** (8 * i));
  assert.equal(
    bytes.reduce((a, b) => a + b),
    wide.readPort(0x608, 4),
  );
});

test("TMR_STS is set when the top bit changes, either way; a host timer runs only for TMR_EN", () => {
  const bench = new Bench();
  let signals = 0;
  const timer = create(bench, 24, () => signals++);
  const half = Math.ceil((2 ** 23 * 1e9) / 3_579_545);
  bench.advance(half - 1);
  assert.equal(timer.carry, false);
  bench.advance(1);
  assert.equal(timer.carry, true);
  assert.equal(timer.readPort(0x608, 4), 0x800000);
  assert.equal(bench.timers.next(), Number.POSITIVE_INFINITY);
  timer.setCarryInterrupt(true);
  assert.equal(signals, 1);
  bench.advance(10 * half);
  assert.equal(signals, 1);
  timer.clearCarry();
  assert.equal(timer.carry, false);
  bench.advance(half);
  assert.equal(signals, 2);
  assert.equal(timer.carry, true);
});

test("restored between two carries it signals at the same time", () => {
  const bench = new Bench();
  const a: number[] = [];
  const b: number[] = [];
  const first = create(bench, 32, () => a.push(bench.clock.now()));
  const second = create(bench, 32, () => b.push(bench.clock.now()));
  first.setCarryInterrupt(true);
  bench.advance(123_456_789);
  restoreState(second, saveState(first));
  bench.advance(700_000_000_000);
  assert.equal(a.length, 1);
  assert.deepEqual(a, b);
});

test("writes are counted and ignored", () => {
  const bench = new Bench();
  create(bench, 32).writePort();
  assert.equal(bench.counts.size, 1);
});
