// The I/O APIC: 82093AA data sheet chapter 3, and the level-triggered dance with the local APIC (SDM Vol. 3A 11.8.5).

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { restoreState, StateError, saveState, uncoveredFields } from "../../../src/vmm/state.ts";
import { ApicMachine } from "./apic-machine.ts";

const MASKED = 0x10000;
const LEVEL = 0x8000;
const REMOTE_IRR = 0x4000;
const LOGICAL = 0x800;

function machine(ids?: readonly number[]): ApicMachine {
  return new ApicMachine({ ids }).enable();
}

/** Takes the pending interrupt without ending it. */
function take(m: ApicMachine, vector: number, position = 0): void {
  assert.equal(m.apics[position].pendingVector(), vector);
  m.apics[position].acknowledge();
}

describe("I/O APIC registers", () => {
  test("id, version with 24 entries and the EOI register, arbitration id", () => {
    const m = machine();
    assert.equal(m.ioRead(0), 0);
    assert.equal(m.ioRead(1), 0x00170020);
    m.ioWrite(0, 0xffffffff);
    assert.equal(m.ioRead(0), 0x0f000000);
    assert.equal(m.ioRead(2), 0x0f000000);
    m.ioWrite(1, 0);
    m.ioWrite(2, 0);
    assert.equal(m.ioRead(1), 0x00170020);
    assert.equal(m.ioRead(2), 0x0f000000);
  });

  test("entries: masked after reset, read-only and reserved bits", () => {
    const m = machine();
    for (let pin = 0; pin < 24; pin++) {
      assert.equal(m.ioRead(0x10 + pin * 2), MASKED);
      assert.equal(m.ioRead(0x11 + pin * 2), 0);
      m.ioWrite(0x10 + pin * 2, 0xffffffff);
      m.ioWrite(0x11 + pin * 2, 0xffffffff);
      assert.equal(m.ioRead(0x10 + pin * 2), 0x1afff);
      assert.equal(m.ioRead(0x11 + pin * 2), 0xff000000);
    }
    m.anomalies.length = 0;
    assert.equal(m.ioRead(0x40), 0);
    m.ioWrite(0x40, 1);
    assert.equal(m.ioRead(0x0f), 0);
    assert.equal(m.anomalies.length, 3);
  });

  test("windows: index by byte, data only whole, holes counted", () => {
    const m = machine();
    m.ioapic.writeMmio(0, 1, 0x01);
    assert.equal(m.ioapic.readMmio(0, 4), 1);
    assert.equal(m.ioapic.readMmio(0x10, 1), 0x20);
    assert.equal(m.ioapic.readMmio(0x10, 2), 0x0020);
    m.ioapic.writeMmio(0, 4, 0x10);
    m.ioapic.writeMmio(0x10, 1, 0x55);
    assert.equal(m.ioapic.readMmio(0x10, 4), MASKED);
    assert.equal(m.anomalies.length, 1);
    assert.equal(m.ioapic.readMmio(0x20, 4), 0);
    m.ioapic.writeMmio(0x20, 4, 0);
    assert.equal(m.ioapic.readMmio(0x40, 4), 0);
    assert.equal(m.anomalies.length, 3);
  });

  test("reset masks all entries and leaves the pins' levels", () => {
    const m = machine();
    const pin = m.ioapic.pin(4, "uart");
    pin.set(true);
    m.redirect(4, 0x41);
    m.ioapic.reset();
    assert.equal(m.ioRead(0x18), MASKED);
    assert.equal(m.ioapic.isAsserted(4), true);
  });
});

describe("edge-triggered pins", () => {
  test("one message each rise, none while it stays, none on fall", () => {
    const m = machine();
    const pin = m.ioapic.pin(4, "uart");
    m.redirect(4, 0x41);
    pin.set(true);
    pin.set(true);
    assert.deepEqual(m.drain(), [0x41]);
    pin.set(false);
    assert.deepEqual(m.drain(), []);
    pin.set(true);
    assert.deepEqual(m.drain(), [0x41]);
    assert.equal(m.read(0x1a0), 0);
  });

  test("an edge on a masked pin is lost, unmasking sends nothing (3.2.4, bit 16)", () => {
    const m = machine();
    const pin = m.ioapic.pin(4, "uart");
    m.redirect(4, 0x41 | MASKED);
    pin.set(true);
    m.redirect(4, 0x41);
    assert.deepEqual(m.drain(), []);
    pin.set(false);
    pin.set(true);
    assert.deepEqual(m.drain(), [0x41]);
  });

  test("a shared edge pin: only the first source makes the edge", () => {
    const m = machine();
    const a = m.ioapic.pin(4, "a");
    const b = m.ioapic.pin(4, "b");
    m.redirect(4, 0x41);
    a.set(true);
    assert.deepEqual(m.drain(), [0x41]);
    b.set(true);
    a.set(false);
    assert.deepEqual(m.drain(), []);
    b.set(false);
    a.set(true);
    assert.deepEqual(m.drain(), [0x41]);
  });

  test("an edge that nobody accepts is lost", () => {
    const m = machine();
    const pin = m.ioapic.pin(4, "uart");
    m.redirect(4, 0x41, 9);
    pin.set(true);
    m.redirect(4, 0x41, 0);
    assert.deepEqual(m.drain(), []);
  });

  test("polarity is kept and changes nothing", () => {
    const m = machine();
    const pin = m.ioapic.pin(4, "uart");
    m.redirect(4, 0x2041);
    assert.deepEqual(m.drain(), []);
    assert.equal(m.ioRead(0x18), 0x2041);
    pin.set(true);
    assert.deepEqual(m.drain(), [0x41]);
  });
});

describe("level-triggered pins", () => {
  test("remote IRR from acceptance to the EOI, TMR set, sent again while asserted", () => {
    const m = machine();
    const pin = m.ioapic.pin(20, "hpet");
    m.redirect(20, 0x61 | LEVEL);
    pin.set(true);
    assert.equal(m.ioRead(0x38), 0x61 | LEVEL | REMOTE_IRR);
    assert.equal(m.read(0x1b0), 2);
    take(m, 0x61);
    assert.equal(m.apic.pendingVector(), -1);
    m.eoi();
    take(m, 0x61);
    pin.set(false);
    assert.equal(m.ioRead(0x38), 0x61 | LEVEL | REMOTE_IRR);
    m.eoi();
    assert.equal(m.ioRead(0x38), 0x61 | LEVEL);
    assert.equal(m.apic.pendingVector(), -1);
  });

  test("a pin that falls and rises before the EOI gives one more interrupt, after it", () => {
    const m = machine();
    const pin = m.ioapic.pin(20, "hpet");
    m.redirect(20, 0x61 | LEVEL);
    pin.set(true);
    take(m, 0x61);
    pin.set(false);
    pin.set(true);
    assert.equal(m.apic.pendingVector(), -1);
    m.eoi();
    take(m, 0x61);
    pin.set(false);
    m.eoi();
    assert.deepEqual(m.drain(), []);
  });

  test("shared by two devices: asserted until the last one lets go", () => {
    const m = machine();
    const a = m.ioapic.pin(16, "a");
    const b = m.ioapic.pin(16, "b");
    m.redirect(16, 0x62 | LEVEL);
    a.set(true);
    b.set(true);
    take(m, 0x62);
    a.set(false);
    m.eoi();
    take(m, 0x62);
    b.set(false);
    m.eoi();
    assert.deepEqual(m.drain(), []);
  });

  test("masked: nothing; unmasked while asserted: sent", () => {
    const m = machine();
    const pin = m.ioapic.pin(16, "a");
    m.redirect(16, 0x62 | LEVEL | MASKED);
    pin.set(true);
    assert.deepEqual(m.drain(), []);
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, 0);
    m.redirect(16, 0x62 | LEVEL);
    take(m, 0x62);
    // Masked while in service: the EOI ends it, and nothing comes before the mask is cleared.
    m.redirect(16, 0x62 | LEVEL | MASKED);
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, REMOTE_IRR);
    m.eoi();
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, 0);
    assert.equal(m.apic.pendingVector(), -1);
    m.redirect(16, 0x62 | LEVEL);
    take(m, 0x62);
  });

  test("vector changed while in service: the old vector's EOI does not count, the new one's does", () => {
    const m = machine();
    const pin = m.ioapic.pin(16, "a");
    m.redirect(16, 0x62 | LEVEL);
    pin.set(true);
    take(m, 0x62);
    m.redirect(16, 0x63 | LEVEL);
    m.eoi();
    assert.equal(m.ioRead(0x30), 0x63 | LEVEL | REMOTE_IRR);
    assert.equal(m.apic.pendingVector(), -1);
    m.ioapic.writeMmio(0x40, 4, 0x63);
    take(m, 0x63);
    // By way of edge, as kernels without an EOI register do it.
    m.redirect(16, 0x74 | LEVEL);
    m.redirect(16, 0x74 | MASKED);
    m.redirect(16, 0x74 | LEVEL);
    take(m, 0x74);
  });

  test("an EOI matches only level entries in service with that vector", () => {
    const m = machine();
    const a = m.ioapic.pin(16, "a");
    const b = m.ioapic.pin(17, "b");
    const c = m.ioapic.pin(18, "c");
    m.redirect(16, 0x62 | LEVEL);
    m.redirect(17, 0x62 | LEVEL);
    m.redirect(18, 0x62);
    a.set(true);
    c.set(true);
    take(m, 0x62);
    m.eoi();
    assert.equal(m.ioRead(0x32) & REMOTE_IRR, 0);
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, REMOTE_IRR);
    b.set(true);
    // Two pins with one vector: one EOI serves both, and both are still asserted.
    take(m, 0x62);
    m.eoi();
    take(m, 0x62);
    a.set(false);
    b.set(false);
    m.eoi();
    assert.equal(m.apic.pendingVector(), -1);
  });

  test("EOI broadcast suppressed: the guest writes the I/O APIC's EOI register (11.8.5)", () => {
    const m = machine();
    m.write(0xf0, 0x11ff);
    const pin = m.ioapic.pin(16, "a");
    m.redirect(16, 0x62 | LEVEL);
    pin.set(true);
    take(m, 0x62);
    m.eoi();
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, REMOTE_IRR);
    assert.equal(m.apic.pendingVector(), -1);
    m.ioapic.writeMmio(0x40, 4, 0x62);
    take(m, 0x62);
    pin.set(false);
    m.ioapic.writeMmio(0x40, 4, 0x62);
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, 0);
  });

  test("not accepted: no remote IRR, sent when somebody accepts or the entry changes", () => {
    const m = new ApicMachine({ ids: [0, 1] });
    const pin = m.ioapic.pin(16, "a");
    m.redirect(16, 0x62 | LEVEL, 0);
    pin.set(true);
    assert.equal(m.ioRead(0x30) & REMOTE_IRR, 0);
    m.write(0xf0, 0x1ff, 0);
    take(m, 0x62);
    m.eoi();
    pin.set(false);
    m.drain();
    m.redirect(16, 0x62 | LEVEL, 1);
    pin.set(true);
    assert.equal(m.apic.pendingVector(), -1);
    m.ioWrite(0x31, 0);
    take(m, 0x62);
  });

  test("NMI and ExtINT are edges whatever the entry says", () => {
    const m = machine();
    const pin = m.ioapic.pin(0, "pic");
    m.redirect(0, LEVEL | 0x400);
    pin.set(true);
    assert.deepEqual(m.events, ["nmi 0"]);
    assert.equal(m.ioRead(0x10) & REMOTE_IRR, 0);
    pin.set(false);
    m.redirect(0, 0x700);
    pin.set(true);
    assert.equal(m.apic.extIntPending(), true);
    pin.set(false);
    for (const mode of [0x300, 0x600, 0x200]) {
      m.redirect(0, mode);
      pin.set(true);
      pin.set(false);
    }
    assert.equal(m.anomalies.length, 3);
  });
});

describe("destinations of I/O APIC messages", () => {
  test("physical, logical, lowest priority, broadcast", () => {
    const m = machine([0, 1, 2]);
    for (let i = 0; i < 3; i++) m.write(0xd0, 1 << (24 + i), i);
    const pin = m.ioapic.pin(5, "a");
    const pulse = (low: number, destination: number) => {
      m.redirect(5, low, destination);
      pin.set(true);
      pin.set(false);
    };
    pulse(0x41, 2);
    assert.deepEqual(m.requestedAt(0x41), [2]);
    pulse(0x52 | LOGICAL, 3);
    assert.deepEqual(m.requestedAt(0x52), [0, 1]);
    pulse(0x63, 0xff);
    assert.deepEqual(m.requestedAt(0x63), [0, 1, 2]);
    pulse(0x74 | LOGICAL | 0x100, 7);
    assert.equal(m.requestedAt(0x74).length, 1);
  });

  test("extended ids take seven more bits of the entry", () => {
    const m = new ApicMachine({ ids: [0x1205], extendedDestinationIds: true }).x2apic().enable();
    const pin = m.ioapic.pin(5, "a");
    m.ioWrite(0x1b, 0x05240000);
    m.ioWrite(0x1a, 0x41);
    assert.equal(m.ioRead(0x1b), 0x05240000);
    pin.set(true);
    assert.equal(m.apic.pendingVector(), 0x41);
  });
});

describe("pin counts", () => {
  test("clamped at zero and counted", () => {
    const m = machine();
    m.ioapic.deassert(3);
    assert.equal(m.anomalies.length, 1);
    m.ioapic.assert(3);
    assert.equal(m.ioapic.isAsserted(3), true);
    m.ioapic.deassert(3);
    assert.equal(m.ioapic.isAsserted(3), false);
  });

  test("there are 24", () => {
    const m = machine();
    for (const n of [-1, 24, Number.NaN]) assert.throws(() => m.ioapic.pin(n, "x"), RangeError);
  });
});

describe("I/O APIC state", () => {
  test("restored in the middle of a level interrupt: no edge, counts kept, continues alike", () => {
    const build = () => {
      const m = machine();
      return { m, a: m.ioapic.pin(16, "a"), b: m.ioapic.pin(16, "b"), e: m.ioapic.pin(4, "e") };
    };
    const one = build();
    one.m.redirect(16, 0x62 | LEVEL);
    one.m.redirect(4, 0x41);
    one.a.set(true);
    one.b.set(true);
    one.e.set(true);
    take(one.m, 0x62);
    const two = build();
    assert.deepEqual(uncoveredFields(two.m.ioapic), []);
    restoreState(two.m.apic, saveState(one.m.apic));
    restoreState(two.m.router, saveState(one.m.router));
    two.m.traces.length = 0;
    restoreState(two.m.ioapic, saveState(one.m.ioapic));
    assert.deepEqual(two.m.traces, []);
    for (const { m, a, b, e } of [one, two]) {
      m.traces.length = 0;
      e.set(true); // no event: it is asserted
      a.set(false);
      m.eoi();
      b.set(false);
      m.drain();
      e.set(false);
      e.set(true);
      m.drain();
      assert.equal(m.ioapic.isAsserted(16), false);
    }
    assert.deepEqual(two.m.traces, one.m.traces);
    assert.deepEqual(saveState(two.m.ioapic), saveState(one.m.ioapic));
  });

  test("a snapshot of a machine wired otherwise is refused", () => {
    const one = machine();
    one.ioapic.pin(16, "a");
    const two = machine();
    two.ioapic.pin(17, "a");
    assert.throws(() => restoreState(two.ioapic, saveState(one.ioapic)), StateError);
  });
});
