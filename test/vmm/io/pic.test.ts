// Intel 8259A data sheet by section; ICH9 data sheet 13.4 for the ELCR.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { InterruptPin } from "../../../src/vmm/bus.ts";
import { Pic } from "../../../src/vmm/io/pic.ts";
import { restoreState, StateError, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { Bench, random } from "./timed-devices.ts";

const EOI = 0x20;

class Board {
  readonly bench = new Bench();
  readonly intr: boolean[] = [];
  readonly pic = new Pic({ anomalies: this.bench.anomalies, intr: (asserted) => this.intr.push(asserted) });
  readonly pins: InterruptPin[] = [];

  constructor(icw4 = 0x01) {
    for (let irq = 0; irq < 16; irq++) if (irq !== 2) this.pins[irq] = this.pic.pin(irq);
    this.initialize(icw4);
  }

  initialize(icw4: number, slaveIcw4 = 0x01): void {
    for (const [base, vector, wiring, mode] of [
      [0x20, 0x30, 0x04, icw4],
      [0xa0, 0x38, 0x02, slaveIcw4],
    ]) {
      this.out(base, 0x11);
      this.out(base + 1, vector);
      this.out(base + 1, wiring);
      this.out(base + 1, mode);
    }
  }

  out(port: number, value: number): void {
    this.pic.writePort(port, 1, value);
  }

  in(port: number): number {
    return this.pic.readPort(port, 1);
  }

  raise(...irqs: number[]): void {
    for (const irq of irqs) this.pins[irq].set(true);
  }

  lower(...irqs: number[]): void {
    for (const irq of irqs) this.pins[irq].set(false);
  }

  isr(base: number): number {
    this.out(base, 0x0b);
    return this.in(base);
  }

  irr(base: number): number {
    this.out(base, 0x0a);
    return this.in(base);
  }
}

test("every field is saved or declared derived", () => {
  const { pic } = new Board();
  assert.deepEqual(uncoveredFields(pic), []);
  const inner = pic as unknown as { master: Parameters<typeof uncoveredFields>[0] };
  assert.deepEqual(uncoveredFields(inner.master), []);
});

test("silent until initialized; OCW1 is readable before that (how Linux probes for an 8259)", () => {
  const bench = new Bench();
  const pic = new Pic({ anomalies: bench.anomalies, intr: () => assert.fail("INTR before initialization") });
  pic.pin(3).set(true);
  pic.writePort(0x21, 1, 0xfb);
  assert.equal(pic.readPort(0x21, 1), 0xfb);
  assert.equal(pic.pending(), false);
});

test("fully nested: priority is decided at acceptance, not when INTR rose", () => {
  const b = new Board();
  b.raise(5);
  assert.equal(b.pic.pending(), true);
  b.raise(3);
  assert.deepEqual(b.intr, [true]);
  assert.equal(b.pic.acknowledge(), 0x33);
  assert.equal(b.isr(0x20), 0x08);
  assert.equal(b.irr(0x20), 0x20);
  assert.equal(b.pic.pending(), false);
  b.raise(1);
  assert.equal(b.pic.acknowledge(), 0x31);
  b.out(0x20, EOI);
  assert.equal(b.isr(0x20), 0x08);
  b.out(0x20, EOI);
  assert.equal(b.pic.acknowledge(), 0x35);
  assert.deepEqual(b.intr, [true, false, true, false, true, false]);
});

test("an edge makes one request; the line may stay high", () => {
  const b = new Board();
  b.raise(4);
  b.pic.acknowledge();
  b.out(0x20, EOI);
  assert.equal(b.pic.pending(), false);
  b.lower(4);
  b.raise(4);
  assert.equal(b.pic.pending(), true);
});

test("a level-triggered input requests for as long as it is high; ELCR bits 0, 1, 2, 8 and 13 stay edge", () => {
  const b = new Board();
  b.pic.writePort(0x4d0, 2, 0xffff);
  assert.equal(b.pic.readPort(0x4d0, 2), 0xdef8);
  b.raise(11);
  assert.equal(b.pic.acknowledge(), 0x3b);
  b.out(0xa0, EOI);
  b.out(0x20, EOI);
  assert.equal(b.pic.acknowledge(), 0x3b);
  b.lower(11);
  b.out(0xa0, EOI);
  b.out(0x20, EOI);
  assert.equal(b.pic.pending(), false);
});

test("sources of one IRQ are counted, and setting the same level again is no event", () => {
  const b = new Board();
  b.out(0x4d1, 0x04);
  const second = b.pic.pin(10);
  b.raise(10);
  b.raise(10);
  second.set(true);
  b.lower(10);
  assert.equal(b.pic.pending(), true);
  second.set(false);
  second.set(false);
  assert.equal(b.pic.pending(), false);
  b.raise(10);
  assert.equal(b.pic.pending(), true);
});

test("spurious IRQ 7: the line dropped before the acknowledge, and no in-service bit is set", () => {
  const b = new Board();
  b.raise(5);
  b.lower(5);
  assert.equal(b.pic.pending(), false);
  assert.equal(b.pic.acknowledge(), 0x37);
  assert.equal(b.isr(0x20), 0);
  assert.equal(b.bench.counts.get("pic: spurious IRQ 7"), 1);
});

test("spurious IRQ 15: the slave has no in-service bit, but the master waits for an EOI of input 2", () => {
  const b = new Board();
  b.raise(10);
  b.lower(10);
  assert.equal(b.pic.pending(), false);
  assert.equal(b.pic.acknowledge(), 0x3f);
  assert.equal(b.isr(0xa0), 0);
  assert.equal(b.isr(0x20), 0x04);
});

test("a slave's request that the master masked, or that was before its initialization, leaves spurious IRQ 7 and nothing in service", () => {
  const masked = new Board();
  masked.raise(10);
  masked.out(0x21, 0xff);
  assert.equal(masked.pic.acknowledge(), 0x37);
  assert.equal(masked.isr(0x20), 0);
  const anew = new Board();
  anew.raise(10);
  anew.lower(10);
  for (const [port, value] of [
    [0x20, 0x11],
    [0x21, 0x30],
    [0x21, 4],
    [0x21, 1],
  ])
    anew.out(port, value);
  assert.equal(anew.pic.acknowledge(), 0x37);
  assert.equal(anew.isr(0x20), 0);
});

test("a request masked after INTR rose is not delivered", () => {
  const b = new Board();
  b.raise(6);
  b.out(0x21, 0x40);
  assert.equal(b.pic.pending(), false);
  b.out(0x21, 0);
  assert.equal(b.pic.acknowledge(), 0x36);
});

test("cascade: a second slave request is seen after the slave's EOI, blocked by the master's in-service bit until then", () => {
  const b = new Board();
  b.raise(12);
  assert.equal(b.pic.acknowledge(), 0x3c);
  b.raise(9);
  assert.equal(b.pic.pending(), false);
  b.out(0x20, EOI);
  assert.equal(b.pic.acknowledge(), 0x39);
  assert.equal(b.isr(0xa0), 0x12);
});

test("special fully nested mode: a higher request of the slave in service comes through, a lower input of the master does not", () => {
  const b = new Board(0x11);
  b.raise(12);
  assert.equal(b.pic.acknowledge(), 0x3c);
  b.raise(4);
  assert.equal(b.pic.pending(), false);
  b.raise(9);
  assert.equal(b.pic.acknowledge(), 0x39);
  b.raise(0);
  assert.equal(b.pic.acknowledge(), 0x30);
});

test("automatic EOI: no in-service bit; both chips hand out one request after the other", () => {
  const b = new Board(0x03);
  b.initialize(0x03, 0x03);
  b.raise(9, 10, 3);
  assert.equal(b.pic.acknowledge(), 0x39);
  assert.equal(b.pic.acknowledge(), 0x3a);
  assert.equal(b.pic.acknowledge(), 0x33);
  assert.equal(b.pic.pending(), false);
  assert.equal(b.isr(0x20), 0);
});

test("rotation in automatic EOI mode: the input served last gets the lowest priority", () => {
  const b = new Board(0x03);
  b.out(0x20, 0x80);
  b.raise(1);
  assert.equal(b.pic.acknowledge(), 0x31);
  b.lower(1);
  b.raise(0, 1, 3);
  assert.equal(b.pic.acknowledge(), 0x33);
  assert.equal(b.pic.acknowledge(), 0x30);
  assert.equal(b.pic.acknowledge(), 0x31);
  b.out(0x20, 0x00);
  b.lower(0, 3);
  b.raise(0, 3);
  assert.equal(b.pic.acknowledge(), 0x33);
  b.lower(3);
  b.raise(3);
  assert.equal(b.pic.acknowledge(), 0x33);
});

test("rotate on non-specific and on specific EOI, set priority", () => {
  const b = new Board();
  b.raise(3);
  b.pic.acknowledge();
  b.out(0x20, 0xa0);
  b.lower(3);
  b.raise(3, 4);
  assert.equal(b.pic.acknowledge(), 0x34);
  b.out(0x20, 0xe4);
  assert.equal(b.isr(0x20), 0);
  b.raise(5);
  b.raise(0);
  assert.equal(b.pic.acknowledge(), 0x35);
  b.out(0x20, 0x65);
  b.out(0x20, 0xc7);
  assert.equal(b.pic.acknowledge(), 0x30);
});

test("special mask mode: a masked in-service input lets lower ones in, and a non-specific EOI does not clear it", () => {
  const b = new Board();
  b.raise(1);
  b.pic.acknowledge();
  b.raise(6);
  assert.equal(b.pic.pending(), false);
  b.out(0x21, 0x02);
  b.out(0x20, 0x68);
  assert.equal(b.pic.acknowledge(), 0x36);
  b.out(0x20, EOI);
  assert.equal(b.isr(0x20), 0x02);
  b.out(0x20, EOI);
  assert.equal(b.isr(0x20), 0x02);
  b.out(0x20, 0x48);
  b.out(0x20, EOI);
  assert.equal(b.isr(0x20), 0);
});

test("poll command: the next read acknowledges, once", () => {
  const b = new Board();
  b.raise(13);
  b.out(0x20, 0x0c);
  assert.equal(b.in(0x20), 0x82);
  assert.equal(b.pic.pending(), false);
  b.out(0xa0, 0x0c);
  assert.equal(b.in(0xa0), 0x85);
  assert.equal(b.isr(0xa0), 0x20);
  b.out(0xa0, 0x0c);
  assert.equal(b.in(0xa0), 0);
});

test("ICW1 clears masks, service and edges: a line that is high needs a new edge", () => {
  const b = new Board();
  b.raise(3, 4);
  b.pic.acknowledge();
  b.out(0x21, 0xf0);
  b.initialize(0x01);
  assert.equal(b.in(0x21), 0);
  assert.equal(b.isr(0x20), 0);
  assert.equal(b.pic.pending(), false);
  b.lower(3);
  b.raise(3);
  assert.equal(b.pic.acknowledge(), 0x33);
});

test("without ICW4, and in single mode without ICW3", () => {
  const b = new Board();
  b.out(0x20, 0x12);
  b.out(0x21, 0x57);
  b.out(0x21, 0x00);
  b.raise(7);
  assert.equal(b.pic.acknowledge(), 0x57);
});

test("a slave with another identity does not answer", () => {
  const b = new Board();
  b.out(0xa0, 0x11);
  b.out(0xa1, 0x38);
  b.out(0xa1, 0x03);
  b.out(0xa1, 0x01);
  b.raise(9);
  assert.equal(b.pic.acknowledge(), 0xff);
});

test("INTR falls and rises when one request is accepted and a higher one is left; reset silences", () => {
  const b = new Board(0x03);
  b.raise(3, 4);
  b.pic.acknowledge();
  assert.deepEqual(b.intr, [true, false, true]);
  b.pic.reset();
  assert.deepEqual(b.intr, [true, false, true, false]);
});

test("there is no pin for the cascade input", () => {
  const { pic } = new Board();
  for (const irq of [2, 16, -1, 1.5]) assert.throws(() => pic.pin(irq), RangeError);
});

test("restore in mid-initialization, makes no edge, and goes on alike", () => {
  const a = new Board();
  a.out(0x4d1, 0x04);
  a.raise(10, 4);
  a.pic.acknowledge();
  a.out(0xa0, 0x11);
  a.out(0xa1, 0x40);
  const b = new Board();
  b.intr.length = 0;
  restoreState(b.pic, saveState(a.pic));
  assert.deepEqual(b.intr, []);
  a.intr.length = 0;
  for (const board of [a, b]) {
    board.out(0xa1, 0x02);
    board.out(0xa1, 0x01);
    board.pins[4].set(true);
    board.pins[10].set(true);
    board.out(0x20, EOI);
    board.out(0x20, EOI);
  }
  assert.deepEqual(a.intr, b.intr);
  assert.deepEqual(saveState(a.pic), saveState(b.pic));
  assert.equal(a.pic.acknowledge(), b.pic.acknowledge());
});

test("a state of a machine with other sources is refused", () => {
  const a = new Board();
  const section = saveState(a.pic);
  a.pic.pin(5);
  assert.throws(() => restoreState(a.pic, section), StateError);
});

test("random accesses never throw, and a restored pair stays the same as its original", () => {
  const ports = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed);
    const a = new Board();
    const b = new Board();
    for (let i = 0; i < 500; i++) {
      if (i === 250) restoreState(b.pic, saveState(a.pic));
      const what = next(5);
      const port = ports[next(ports.length)];
      const value = next(256);
      const irq = next(16);
      const size = ([1, 1, 1, 2, 4] as const)[next(5)];
      const results = (i < 250 ? [a] : [a, b]).map((board) => {
        if (what === 0 && irq !== 2) board.pins[irq].set((value & 1) !== 0);
        else if (what === 1) return board.pic.readPort(port, size);
        else if (what === 2) return board.pic.acknowledge();
        else board.pic.writePort(port, size, value);
        return board.pic.pending();
      });
      assert.equal(results[0], results[results.length - 1]);
      if (a.intr.length > 0) assert.equal(a.intr[a.intr.length - 1], a.pic.pending());
    }
  }
});
