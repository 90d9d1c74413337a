// IA-PC HPET specification 1.0a, chapter 2. TRAPS 12.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Hpet, type HpetOptions } from "../../../src/vmm/io/hpet.ts";
import { restoreState, StateError, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { Bench, type RecordingPin, random } from "./timed-devices.ts";

const GEN_CONF = 0x10;
const GINTR_STA = 0x20;
const COUNTER = 0xf0;
const LEVEL = 0x2;
const ENABLE = 0x4;
const PERIODIC = 0x8;
const VAL_SET = 0x40;
const MODE32 = 0x100;
const FSB = 0x4000;
const MICROSECOND = 100;

const config = (n: number) => 0x100 + 0x20 * n;
const comparator = (n: number) => 0x108 + 0x20 * n;
const route = (input: number) => input << 9;

class Board {
  readonly bench: Bench;
  readonly pins: RecordingPin[] = [];
  readonly legacy: [RecordingPin, RecordingPin];
  readonly messages: { readonly at: number; readonly address: bigint; readonly data: number }[] = [];
  readonly replacement: boolean[] = [];
  readonly hpet: Hpet;

  constructor(bench = new Bench(), options: Partial<HpetOptions> = {}) {
    this.bench = bench;
    const { clock, timers, anomalies } = bench;
    for (let input = 20; input < 24; input++) this.pins[input] = bench.pin();
    this.legacy = [bench.pin(), bench.pin()];
    this.hpet = new Hpet({
      clock,
      timers,
      anomalies,
      pins: this.pins,
      legacyPins: this.legacy,
      msi: { sendMsi: (address, data) => this.messages.push({ at: clock.now(), address, data }) },
      legacyReplacement: (active) => this.replacement.push(active),
      ...options,
    });
  }

  write(offset: number, value: number): void {
    this.hpet.writeMmio(offset, 4, value >>> 0);
  }

  read(offset: number): number {
    return this.hpet.readMmio(offset, 4);
  }

  read64(offset: number): bigint {
    return BigInt(this.read(offset)) | (BigInt(this.read(offset + 4)) << 32n);
  }

  write64(offset: number, value: bigint): void {
    this.write(offset, Number(value & 0xffffffffn));
    this.write(offset + 4, Number(value >> 32n));
  }
}

test("every field is saved or declared derived", () => {
  assert.deepEqual(uncoveredFields(new Board().hpet), []);
});

test("capabilities: as the ACPI table announces them, a period of 10 ns", () => {
  const b = new Board();
  assert.equal(b.read(0), 0x8086a201);
  assert.equal(b.read(4), 10_000_000);
  assert.equal(b.read(config(0) + 4), 0x00f00000);
  assert.equal(b.read(config(1)), 0x8030);
  assert.equal(new Board(new Bench(), { comparators: 8, msi: undefined }).read(0), 0x8086a701);
  assert.equal(new Board(new Bench(), { msi: undefined }).read(config(0)), 0x30);
});

test("the main counter stands, is set, runs and halts", () => {
  const b = new Board();
  b.bench.advance(1000);
  assert.equal(b.read64(COUNTER), 0n);
  b.write64(COUNTER, 0xfffffffffffffff0n);
  b.write(GEN_CONF, 1);
  b.bench.advance(100);
  assert.equal(b.read64(COUNTER), 0xfffffffffffffffan);
  b.bench.advance(100);
  assert.equal(b.read64(COUNTER), 4n);
  b.write(GEN_CONF, 0);
  b.bench.advance(100);
  assert.equal(b.read64(COUNTER), 4n);
});

test("a 64-bit read in two halves is of one instant, also when the carry comes between; high-low-high loops work too", () => {
  const b = new Board();
  b.write64(COUNTER, 0x1fffffff0n);
  b.write(GEN_CONF, 1);
  b.bench.advance(155);
  const low = b.read(COUNTER);
  b.bench.advance(1000);
  assert.equal(low, 0xffffffff);
  assert.equal(b.read(COUNTER + 4), 1);
  assert.equal(b.read(COUNTER + 4), 2);
  b.read(COUNTER);
  b.read(GEN_CONF);
  assert.equal(b.read(COUNTER + 4), 2);
  b.write(GEN_CONF, 0);
  b.write64(COUNTER, 0x1fffffff0n);
  b.write(GEN_CONF, 1);
  b.read(COUNTER);
  b.bench.advance(1_000_000_000);
  assert.equal(b.read(COUNTER + 4), 2);
});

test("one-shot: an edge when the counter reaches the comparator, then no more; a pulse on an I/O APIC input", () => {
  const b = new Board();
  b.write(config(0), ENABLE | route(20));
  b.write64(comparator(0), BigInt(5 * MICROSECOND));
  b.write(GEN_CONF, 1);
  b.bench.advance(1_000_000_000_000);
  assert.deepEqual(b.pins[20].rises, [5000]);
  assert.equal(b.pins[20].level, false);
  assert.equal(b.read64(comparator(0)), BigInt(5 * MICROSECOND));
  assert.equal(b.read(GINTR_STA), 0);
});

test("a comparator in the past never matches in 64 bits, and after the wrap in 32", () => {
  const b = new Board();
  b.write(GEN_CONF, 1);
  b.bench.advance(10_000);
  b.write(config(0), ENABLE | route(20));
  b.write64(comparator(0), 500n);
  b.write(config(1), ENABLE | MODE32 | route(21));
  b.write(comparator(1), 500);
  b.bench.advance(100_000_000_000);
  assert.deepEqual(b.pins[20].rises, []);
  const wrap = 2 ** 32 * 10;
  assert.deepEqual(b.pins[21].rises, [5000 + wrap, 5000 + 2 * wrap]);
});

test("a comparator set to the counter's present value matches at once", () => {
  const b = new Board();
  b.write(GEN_CONF, 1);
  b.bench.advance(10_000);
  b.write(config(2), ENABLE | MODE32 | route(22));
  b.write(comparator(2), b.read(COUNTER));
  b.bench.timers.run(b.bench.clock.now());
  assert.deepEqual(b.pins[22].rises, [10_000]);
});

test("periodic as Linux sets it: accumulator with VAL_SET, then the period without", () => {
  const b = new Board();
  b.write(GEN_CONF, 1);
  b.bench.advance(12_345);
  b.write(config(0), ENABLE | PERIODIC | VAL_SET | MODE32 | route(20));
  b.write(comparator(0), 3000);
  b.write(comparator(0), 1000);
  b.bench.advance(50_000);
  assert.deepEqual(b.pins[20].rises, [30_000, 40_000, 50_000, 60_000]);
  assert.equal(b.read(comparator(0)), 7000);
  assert.equal(b.read(config(0)) & VAL_SET, 0);
  // A new rate counts from the next match on.
  b.write(comparator(0), 500);
  b.bench.advance(20_000);
  assert.deepEqual(b.pins[20].rises.slice(4), [70_000, 75_000, 80_000]);
});

test("VAL_SET covers a 64-bit write; one write sets accumulator and period", () => {
  const b = new Board();
  b.write(config(0), ENABLE | PERIODIC | VAL_SET | route(20));
  b.write64(comparator(0), 0x1_0000_0000n);
  b.write(GEN_CONF, 1);
  b.bench.advance(2 ** 32 * 10 * 2);
  assert.deepEqual(b.pins[20].rises, [2 ** 32 * 10, 2 ** 32 * 20]);
  assert.equal(b.read64(comparator(0)), 0x3_0000_0000n);
});

test("reading the low half does not open the accumulator for a write of the high half", () => {
  const b = new Board();
  b.write(config(0), PERIODIC | VAL_SET);
  b.write(comparator(0), 77);
  assert.equal(b.read(comparator(0) + 4), 0xffffffff);
  b.read(comparator(0));
  b.write(comparator(0) + 4, 5);
  assert.equal(b.read(comparator(0) + 4), 0xffffffff);
});

test("a late periodic comparator makes one interrupt, keeps its phase, and reads as if it had been on time", () => {
  const b = new Board();
  b.write(config(0), ENABLE | PERIODIC | VAL_SET | MODE32 | route(20));
  b.write(comparator(0), 1000);
  b.write(GEN_CONF, 1);
  b.bench.clock.advance(55_000);
  assert.equal(b.read(comparator(0)), 6000);
  assert.equal(b.pins[20].rises.length, 1);
  b.bench.stall(100_000_000);
  assert.equal(b.pins[20].rises.length, 2);
  b.bench.advance(10_000);
  assert.equal(b.pins[20].rises[2] % 10_000, 0);
});

test("level-triggered: the line follows the status bit; the status stands even with the interrupt off", () => {
  const b = new Board();
  b.write(config(1), LEVEL | MODE32 | route(23));
  b.write(comparator(1), 100);
  b.write(GEN_CONF, 1);
  assert.equal(b.bench.timers.next(), Number.POSITIVE_INFINITY);
  b.bench.advance(2000);
  assert.equal(b.read(GINTR_STA), 2);
  assert.equal(b.pins[23].level, false);
  b.write(config(1), LEVEL | ENABLE | MODE32 | route(23));
  assert.equal(b.pins[23].level, true);
  b.write(config(1), LEVEL | ENABLE | MODE32 | route(22));
  assert.deepEqual([b.pins[23].level, b.pins[22].level], [false, true]);
  b.write(GEN_CONF, 0);
  assert.equal(b.pins[22].level, false);
  b.write(GEN_CONF, 1);
  assert.equal(b.pins[22].level, true);
  b.write(GINTR_STA, 1);
  assert.equal(b.pins[22].level, true);
  b.write(GINTR_STA, 2);
  assert.equal(b.pins[22].level, false);
});

test("a route that is not offered is not taken", () => {
  const b = new Board();
  b.write(config(0), route(21));
  b.write(config(0), route(5));
  assert.equal(b.read(config(0)) & 0x3e00, route(21));
});

test("legacy replacement: IRQ 0 and IRQ 8 change hands when both bits are set; the edge is held for the 8259", () => {
  const b = new Board();
  b.write(config(0), ENABLE | PERIODIC | VAL_SET | MODE32);
  b.write(comparator(0), 1000);
  b.write(config(1), ENABLE | MODE32);
  b.write(comparator(1), 2500);
  b.write(GEN_CONF, 2);
  assert.deepEqual(b.replacement, []);
  b.write(GEN_CONF, 3);
  assert.deepEqual(b.replacement, [true]);
  for (let n = 0; n < 7; n++) {
    b.bench.advance(5_000);
    b.hpet.ticks.acknowledged();
  }
  assert.deepEqual(b.legacy[0].rises, [10_000, 20_000, 30_000]);
  assert.deepEqual(b.legacy[1].rises, [25_000]);
  assert.equal(b.legacy[0].level, true);
  b.write(GEN_CONF, 1);
  assert.deepEqual(b.replacement, [true, false]);
  assert.deepEqual([b.legacy[0].level, b.legacy[1].level], [false, false]);
  b.write(GEN_CONF, 3);
  b.hpet.reset();
  assert.deepEqual(b.replacement, [true, false, true, false]);
});

test("on IRQ 0 no match of a periodic comparator is lost: those the host was late for come as each is served", () => {
  const b = new Board();
  const start = () => {
    b.write(config(0), ENABLE | PERIODIC | VAL_SET | MODE32);
    b.write(comparator(0), b.read(COUNTER) + 1000);
    b.write(comparator(0), 1000);
  };
  b.write(GEN_CONF, 3);
  start();
  b.bench.stall(55_000);
  assert.equal(b.legacy[0].rises.length, 1, "five are due");
  for (let n = 2; n <= 5; n++) {
    b.hpet.ticks.acknowledged();
    assert.equal(b.legacy[0].rises.length, n);
    assert.equal(b.legacy[0].level, true, "held for the 8259");
  }
  b.hpet.ticks.acknowledged();
  b.hpet.ticks.acknowledged();
  assert.equal(b.legacy[0].rises.length, 5);
  // While one is in service the next waits, and is not forgotten.
  b.bench.advance(5_000);
  b.bench.advance(20_000);
  assert.equal(b.legacy[0].rises.length, 6);
  b.hpet.ticks.acknowledged();
  assert.equal(b.legacy[0].rises.length, 7);
  // Programmed anew, or led elsewhere: nothing is owed.
  for (const change of [start, () => b.write(GEN_CONF, 1), () => b.hpet.reset()]) {
    b.bench.stall(55_000);
    change();
    b.legacy[0].rises.length = 0;
    b.hpet.ticks.acknowledged();
    assert.equal(b.legacy[0].rises.length, 0);
  }
});

test("IRQ 8, and one-shot comparators on IRQ 0, interrupt once however late", () => {
  const b = new Board();
  b.write(config(0), ENABLE | MODE32);
  b.write(comparator(0), 1000);
  b.write(config(1), ENABLE | PERIODIC | VAL_SET | MODE32);
  b.write(comparator(1), 1000);
  b.write(GEN_CONF, 3);
  b.bench.stall(100_000);
  b.hpet.ticks.acknowledged();
  assert.deepEqual([b.legacy[0].rises.length, b.legacy[1].rises.length], [1, 1]);
});

test("FSB interrupts are messages", () => {
  const b = new Board();
  b.write(0x110, 0x4031);
  b.write(0x114, 0xfee01000);
  b.write(config(0), ENABLE | FSB | MODE32);
  b.write(comparator(0), 100);
  b.write(GEN_CONF, 1);
  b.bench.advance(10_000);
  assert.deepEqual(b.messages, [{ at: 1000, address: 0xfee01000n, data: 0x4031 }]);
});

test("narrow and unaligned accesses", () => {
  const b = new Board();
  assert.equal(b.hpet.readMmio(2, 2), 0x8086);
  assert.equal(b.hpet.readMmio(1, 1), 0xa2);
  assert.equal(b.hpet.readMmio(3, 2), 0);
  b.hpet.writeMmio(GEN_CONF, 1, 1);
  assert.equal(b.read(GEN_CONF), 0);
  assert.equal(b.bench.counts.size, 2);
});

test("a state with another number of comparators is refused", () => {
  const section = saveState(new Board(new Bench(), { comparators: 4 }).hpet);
  assert.throws(() => restoreState(new Board().hpet, section), StateError);
});

test("random accesses never throw, the counter never goes back while it runs, and restore in mid-work goes on alike", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed);
    const bench = new Bench();
    const a = new Board(bench);
    const b = new Board(bench);
    let last = -1n;
    for (let i = 0; i < 400; i++) {
      if (i === 200) {
        restoreState(b.hpet, saveState(a.hpet));
        for (let input = 20; input < 24; input++) b.pins[input].level = a.pins[input].level;
        for (let n = 0; n < 2; n++) b.legacy[n].level = a.legacy[n].level;
        a.messages.length = 0;
        for (const board of [a, b]) for (const pin of [...board.legacy, ...board.pins.slice(20)]) pin.rises.length = 0;
      }
      const offset = [GEN_CONF, GINTR_STA, COUNTER, COUNTER + 4, 0x100 + 4 * next(24)][next(5)];
      const value = [next(0x10000), next(0xffffffff), 3, ENABLE | next(16) | MODE32][next(4)];
      const size = ([4, 4, 4, 2, 1] as const)[next(5)];
      const read = next(2) === 0;
      const results = (i < 200 ? [a] : [a, b]).map(({ hpet }) =>
        read ? hpet.readMmio(offset, size) : hpet.writeMmio(offset, size, value),
      );
      assert.equal(results[0], results[results.length - 1]);
      if (!read && (offset & ~7) === COUNTER) last = -1n;
      const counter = a.read64(COUNTER);
      if (i >= 200) b.read64(COUNTER);
      assert.ok(counter >= last || last > 0xffffffff00000000n);
      last = counter;
      bench.stall(next(3) === 0 ? next(100_000_000) : next(2000));
    }
    assert.deepEqual(saveState(a.hpet), saveState(b.hpet));
    assert.deepEqual(a.messages, b.messages);
    for (let input = 20; input < 24; input++) assert.deepEqual(a.pins[input].rises, b.pins[input].rises);
    for (let n = 0; n < 2; n++) assert.deepEqual(a.legacy[n].rises, b.legacy[n].rises);
  }
});
