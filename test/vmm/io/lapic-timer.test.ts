// The local APIC timer: SDM Vol. 3A 11.5.4. A count of the 25 MHz crystal is 40 ns.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { divisorOf } from "../../../src/vmm/io/lapic-timer.ts";
import { restoreState, saveState } from "../../../src/vmm/state.ts";
import { ApicMachine } from "./apic-machine.ts";

const LVT = 0x320;
const INITIAL = 0x380;
const CURRENT = 0x390;
const DIVIDE = 0x3e0;
const PERIODIC = 0x20000;
const DEADLINE = 0x40000;
const MASKED = 0x10000;
/** Divide by 1. */
const BY_1 = 0xb;

function machine(lvt: number, divide = BY_1): ApicMachine {
  const m = new ApicMachine().enable();
  m.write(DIVIDE, divide);
  m.write(LVT, lvt);
  return m;
}

describe("local APIC timer", () => {
  test("divisors (figure 11-10)", () => {
    const encodings = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011];
    assert.deepEqual(encodings.map(divisorOf), [2, 4, 8, 16, 32, 64, 128, 1]);
  });

  test("one-shot: counts down to zero, fires once, at every divisor", () => {
    for (const divide of [0, 1, 2, 3, 8, 9, 10, 11]) {
      const m = machine(0x40, divide);
      const count = 40 * divisorOf(divide);
      m.write(INITIAL, 1000);
      assert.equal(m.read(CURRENT), 1000);
      m.advance(count);
      assert.equal(m.read(CURRENT), 999);
      m.advance(count * 998);
      assert.equal(m.read(CURRENT), 1);
      m.advance(count - 1);
      assert.equal(m.read(CURRENT), 1);
      assert.equal(m.apic.pendingVector(), -1);
      m.advance(1);
      assert.equal(m.read(CURRENT), 0);
      assert.equal(m.read(INITIAL), 1000);
      assert.deepEqual(m.drain(), [0x40]);
      m.advance(count * 5000);
      assert.deepEqual(m.drain(), []);
      assert.equal(m.apic.statistics.timerInterrupts, 1);
    }
  });

  test("the longest run: 2^32 - 1 counts by 128", () => {
    const m = machine(0x40, 0xa);
    m.write(INITIAL, 0xffffffff);
    assert.equal(m.read(CURRENT), 0xffffffff);
    m.advance(128 * 40);
    assert.equal(m.read(CURRENT), 0xfffffffe);
    m.advance(128 * 40 * 0xfffffffd);
    assert.equal(m.read(CURRENT), 1);
    m.advance(128 * 40);
    assert.deepEqual(m.drain(), [0x40]);
  });

  test("zero stops, a new count restarts, a masked timer counts silently", () => {
    const m = machine(0x40);
    m.write(INITIAL, 100);
    m.advance(2000);
    m.write(INITIAL, 0);
    assert.equal(m.read(CURRENT), 0);
    m.advance(10_000);
    assert.deepEqual(m.drain(), []);
    m.write(INITIAL, 100);
    m.advance(3999);
    m.write(INITIAL, 50);
    assert.equal(m.read(CURRENT), 50);
    m.advance(1999);
    assert.deepEqual(m.drain(), []);
    m.advance(1);
    assert.deepEqual(m.drain(), [0x40]);
    m.write(LVT, 0x40 | MASKED);
    m.write(INITIAL, 100);
    m.advance(2000);
    assert.equal(m.read(CURRENT), 50);
    m.advance(2000);
    m.write(LVT, 0x40);
    assert.deepEqual(m.drain(), []);
  });

  test("periodic: fires each period in phase, the count reloads", () => {
    const m = machine(0x41 | PERIODIC);
    m.write(INITIAL, 1000);
    for (let round = 0; round < 50; round++) {
      m.advance(39_999);
      assert.equal(m.read(CURRENT), 1);
      assert.deepEqual(m.drain(), []);
      m.advance(1);
      assert.equal(m.read(CURRENT), 1000);
      assert.deepEqual(m.drain(), [0x41]);
    }
    // Run late by less than a period: the next stays where it was.
    m.advance(40_000 + 10_000);
    assert.deepEqual(m.drain(), [0x41]);
    assert.equal(m.timers.next(), m.clock.now() + 30_000);
  });

  test("periodic: late by many periods gives one interrupt, not a burst", () => {
    const m = machine(0x41 | PERIODIC);
    m.write(INITIAL, 1000);
    m.advance(40_000 * 1000 + 123);
    assert.deepEqual(m.drain(), [0x41]);
    assert.equal(m.apic.statistics.timerInterrupts, 1);
    assert.equal(m.timers.next(), m.clock.now() + 40_000 - 123);
  });

  test("periodic: a tiny period does not keep the run loop from ending", () => {
    const m = machine(0x41 | PERIODIC);
    m.write(INITIAL, 1);
    for (let i = 0; i < 100; i++) m.advance(100);
    assert.ok(m.apic.statistics.timerInterrupts <= 2);
    m.advance(1_000_000);
    assert.ok(m.timers.next() > m.clock.now());
  });

  test("periodic and masked: nothing is armed, unmasking continues in phase", () => {
    const m = machine(0x41 | PERIODIC | MASKED);
    m.write(INITIAL, 1000);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
    m.advance(100_000);
    assert.equal(m.read(CURRENT), 500);
    m.write(LVT, 0x41 | PERIODIC);
    assert.deepEqual(m.drain(), []);
    assert.equal(m.timers.next(), 120_000);
    m.advance(20_000);
    assert.deepEqual(m.drain(), [0x41]);
  });

  test("the mode may be written after the initial count; between one-shot and periodic the count goes on", () => {
    const m = machine(0x42);
    m.write(INITIAL, 1000);
    m.advance(10_000);
    m.write(LVT, 0x42 | PERIODIC);
    assert.equal(m.read(CURRENT), 750);
    m.advance(70_000);
    assert.deepEqual(m.drain(), [0x42]);
    assert.equal(m.timers.next(), 120_000);
    m.write(LVT, 0x42);
    m.advance(1_000_000);
    assert.equal(m.apic.statistics.timerInterrupts, 2);
    assert.equal(m.read(CURRENT), 0);
    // A one-shot run that has ended does not begin again.
    m.write(LVT, 0x42 | PERIODIC);
    assert.equal(m.read(CURRENT), 0);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
  });

  test("a change of the divisor re-scales at once", () => {
    const m = machine(0x43);
    m.write(INITIAL, 1000);
    m.advance(20_000);
    assert.equal(m.read(CURRENT), 500);
    m.write(DIVIDE, 1);
    assert.equal(m.read(CURRENT), 500);
    m.advance(160);
    assert.equal(m.read(CURRENT), 499);
    m.write(DIVIDE, BY_1);
    m.advance(499 * 40 - 1);
    assert.deepEqual(m.drain(), []);
    m.advance(1);
    assert.deepEqual(m.drain(), [0x43]);
  });

  test("TSC-deadline: fires when the TSC reaches the deadline, and clears it (11.5.4.1)", () => {
    const m = machine(0x44 | DEADLINE);
    m.apic.writeTscDeadline(5000n);
    assert.equal(m.apic.readTscDeadline(), 5000n);
    assert.equal(m.read(CURRENT), 0);
    m.write(INITIAL, 1000);
    assert.equal(m.read(INITIAL), 0);
    m.advance(4999);
    assert.deepEqual(m.drain(), []);
    m.advance(1);
    assert.deepEqual(m.drain(), [0x44]);
    assert.equal(m.apic.readTscDeadline(), 0n);
    // In the past: at once. Zero: disarmed. Replaced: the later write counts.
    m.apic.writeTscDeadline(1n);
    assert.deepEqual(m.drain(), [0x44]);
    m.apic.writeTscDeadline(9000n);
    m.apic.writeTscDeadline(0n);
    m.advance(10_000);
    assert.deepEqual(m.drain(), []);
    m.apic.writeTscDeadline(20_000n);
    m.apic.writeTscDeadline(30_000n);
    m.advance(10_000);
    assert.deepEqual(m.drain(), []);
    m.apic.writeTscDeadline(0xffffffffffffffffn);
    m.advance(1_000_000);
    assert.equal(m.apic.readTscDeadline(), 0xffffffffffffffffn);
    assert.deepEqual(m.drain(), []);
  });

  test("TSC-deadline: the MSR reads zero and ignores writes in other modes, a change of mode disarms", () => {
    const m = machine(0x44);
    m.apic.writeTscDeadline(5000n);
    assert.equal(m.apic.readTscDeadline(), 0n);
    m.write(INITIAL, 1000);
    m.write(LVT, 0x44 | DEADLINE);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
    m.apic.writeTscDeadline(1_000_000n);
    m.write(LVT, 0x44);
    assert.equal(m.apic.readTscDeadline(), 0n);
    m.write(LVT, 0x44 | DEADLINE);
    assert.equal(m.apic.readTscDeadline(), 0n);
    m.advance(2_000_000);
    assert.deepEqual(m.drain(), []);
    // Re-writing the same mode leaves it armed.
    m.apic.writeTscDeadline(3_000_000n);
    m.write(LVT, 0x45 | DEADLINE);
    m.advance(1_000_000);
    assert.deepEqual(m.drain(), [0x45]);
  });

  test("a TSC that is set moves the deadline", () => {
    let offset = 0n;
    const m = new ApicMachine({ apic: { tscToNs: (tsc) => Number(tsc - offset) } }).enable();
    m.write(LVT, 0x44 | DEADLINE);
    m.apic.writeTscDeadline(10_000n);
    offset = 4000n;
    m.apic.tscChanged();
    m.advance(5999);
    assert.deepEqual(m.drain(), []);
    m.advance(1);
    assert.deepEqual(m.drain(), [0x44]);
  });

  test("the reserved mode runs nothing", () => {
    const m = machine(0x44 | PERIODIC | DEADLINE);
    m.write(INITIAL, 1000);
    m.apic.writeTscDeadline(5n);
    m.advance(1_000_000);
    assert.deepEqual(m.drain(), []);
  });

  test("software disable stops the timer, enabling restarts a periodic one", () => {
    const m = machine(0x41 | PERIODIC);
    m.write(INITIAL, 1000);
    m.write(0xf0, 0xff);
    assert.equal(m.read(CURRENT), 0);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
    m.advance(50_000);
    m.write(0xf0, 0x1ff);
    assert.equal(m.read(CURRENT), 1000);
    m.write(LVT, 0x41 | PERIODIC);
    m.advance(40_000);
    assert.deepEqual(m.drain(), [0x41]);
    m.write(INITIAL, 0);
    m.write(0xf0, 0xff);
    m.write(0xf0, 0x1ff);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
  });

  test("an expiry that is due but not run yet is seen before a register write", () => {
    const m = machine(0x40);
    m.write(INITIAL, 100);
    m.clock.advance(4000);
    m.write(LVT, 0x40 | MASKED);
    assert.deepEqual(m.drain(), [0x40]);
  });

  test("an illegal vector in the timer's entry is an error, no interrupt (11.5.3)", () => {
    const m = machine(0x07);
    m.write(INITIAL, 1);
    m.advance(100);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0x40);
    assert.equal(m.apic.statistics.timerInterrupts, 0);
  });

  test("fuzz: the current count never rises within a run, whatever is read when", () => {
    let seed = 12345;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (const frequency of [25_000_000, 24_000_000, 19_200_000, 1_000_000_000, 133_333_333]) {
      for (let run = 0; run < 40; run++) {
        const m = new ApicMachine({ apic: { timerFrequency: frequency } }).enable();
        const periodic = run % 2 === 1;
        m.write(DIVIDE, random(16));
        m.write(LVT, 0x40 | (periodic ? PERIODIC : 0));
        const initial = 1 + random(2 ** (1 + random(32)));
        m.write(INITIAL, initial);
        let last = m.read(CURRENT);
        assert.equal(last, initial);
        let fired = 0;
        for (let step = 0; step < 60; step++) {
          m.advancePrecisely(random(Math.floor((initial * 40) / 16)));
          const count = m.read(CURRENT);
          const now = m.apic.statistics.timerInterrupts;
          assert.ok(count <= initial);
          if (now === fired) assert.ok(count <= last, `${frequency} Hz: ${count} after ${last}`);
          if (random(8) === 0) m.write(DIVIDE, random(16));
          assert.ok(m.read(CURRENT) <= count + 1);
          fired = now;
          last = m.read(CURRENT);
        }
      }
    }
  });

  test("save and restore with each mode armed continue alike", () => {
    const start: [string, (m: ApicMachine) => void][] = [
      ["one-shot", (m) => m.write(INITIAL, 5000)],
      [
        "periodic",
        (m) => {
          m.write(LVT, 0x40 | PERIODIC);
          m.write(INITIAL, 700);
        },
      ],
      [
        "masked periodic",
        (m) => {
          m.write(LVT, 0x40 | PERIODIC | MASKED);
          m.write(INITIAL, 700);
        },
      ],
      [
        "deadline",
        (m) => {
          m.write(LVT, 0x40 | DEADLINE);
          m.apic.writeTscDeadline(210_000n);
        },
      ],
    ];
    for (const [name, begin] of start) {
      const a = machine(0x40, 1);
      begin(a);
      a.advance(111_111);
      a.drain();
      const b = new ApicMachine();
      b.clock.set(111_111);
      restoreState(b.apic, saveState(a.apic));
      assert.equal(b.timers.next(), a.timers.next(), name);
      for (let i = 0; i < 30; i++) {
        a.advance(12_345);
        b.advance(12_345);
        assert.equal(b.read(CURRENT), a.read(CURRENT), name);
        assert.equal(b.apic.readTscDeadline(), a.apic.readTscDeadline());
        assert.deepEqual(b.drain(), a.drain(), name);
      }
    }
  });
});
