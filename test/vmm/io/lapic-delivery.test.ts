// Priorities, acceptance, EOI and IPIs: SDM Vol. 3A 11.6 and 11.8.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { decodeIcr, dispositionOf, Shorthand } from "../../../src/vmm/io/icr.ts";
import { DeliveryMode } from "../../../src/vmm/io/interrupt-message.ts";
import { ApicMachine } from "./apic-machine.ts";

const FIXED = DeliveryMode.FIXED;

describe("priorities (11.8.3)", () => {
  test("PPR from TPR and the highest vector in service", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0x35);
    assert.equal(m.read(0xa0), 0x35);
    m.apic.deliver(FIXED, 0x57, false);
    assert.equal(m.apic.acknowledge(), 0x57);
    assert.equal(m.read(0xa0), 0x50);
    m.write(0x80, 0x5a);
    assert.equal(m.read(0xa0), 0x5a);
    m.write(0x80, 0x61);
    assert.equal(m.read(0xa0), 0x61);
  });

  test("only a class above the processor priority's is pending, for every TPR and vector", () => {
    const m = new ApicMachine().enable();
    for (let tpr = 0; tpr < 256; tpr++) {
      m.apic.setTpr(tpr);
      for (const vector of [0x10, 0x1f, 0x20, 0x7f, 0x80, 0xf0, 0xff]) {
        m.apic.deliver(FIXED, vector, false);
        assert.equal(m.apic.pendingVector(), vector >> 4 > tpr >> 4 ? vector : -1);
        m.apic.setTpr(0);
        assert.deepEqual(m.drain(), [vector]);
        m.apic.setTpr(tpr);
      }
    }
  });

  test("nesting: a higher class interrupts, the same class waits for the EOI", () => {
    const m = new ApicMachine().enable();
    m.apic.deliver(FIXED, 0x41, false);
    assert.equal(m.apic.acknowledge(), 0x41);
    m.apic.deliver(FIXED, 0x4f, false);
    assert.equal(m.apic.pendingVector(), -1);
    m.apic.deliver(FIXED, 0x50, false);
    assert.equal(m.apic.acknowledge(), 0x50);
    m.eoi();
    assert.equal(m.apic.pendingVector(), -1);
    m.eoi();
    assert.equal(m.apic.pendingVector(), 0x4f);
  });

  test("one request and one in service per vector: two are kept, a third is lost (11.8.4)", () => {
    const m = new ApicMachine().enable();
    for (let i = 0; i < 2; i++) m.apic.deliver(FIXED, 0x41, false);
    m.apic.acknowledge();
    for (let i = 0; i < 2; i++) m.apic.deliver(FIXED, 0x41, false);
    m.eoi();
    assert.deepEqual(m.drain(), [0x41]);
  });

  test("the vCPU is told when something became deliverable: request, TPR, EOI", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0xf0);
    m.kicks = 0;
    m.apic.deliver(FIXED, 0x41, false);
    assert.equal(m.kicks, 0);
    m.write(0x80, 0);
    assert.equal(m.kicks, 1);
    m.apic.acknowledge();
    m.apic.deliver(FIXED, 0x42, false);
    assert.equal(m.kicks, 1);
    m.eoi();
    assert.equal(m.kicks, 2);
  });

  test("spurious: an acknowledge with nothing deliverable gives the SVR's vector and puts nothing in service (11.9)", () => {
    const m = new ApicMachine();
    m.write(0xf0, 0x1ef);
    m.apic.deliver(FIXED, 0x41, false);
    m.write(0x80, 0x40);
    assert.equal(m.apic.acknowledge(), 0xef);
    assert.equal(m.apic.statistics.spuriousInterrupts, 1);
    for (let offset = 0x100; offset < 0x180; offset += 0x10) assert.equal(m.read(offset), 0);
  });

  test("an EOI with nothing in service is counted and changes nothing", () => {
    const m = new ApicMachine().enable();
    m.apic.deliver(FIXED, 0x41, false);
    m.eoi();
    assert.equal(m.anomalies.length, 1);
    assert.equal(m.apic.pendingVector(), 0x41);
  });

  test("a disabled APIC takes no fixed interrupts, but NMI, INIT and start-up; what it has stays (11.4.7.2)", () => {
    const m = new ApicMachine().enable();
    m.apic.deliver(FIXED, 0x41, false);
    m.write(0xf0, 0xff);
    assert.equal(m.apic.deliver(FIXED, 0x42, false), false);
    for (const mode of [DeliveryMode.NMI, DeliveryMode.INIT, DeliveryMode.STARTUP]) {
      assert.equal(m.apic.deliver(mode, 0x9a, false), true);
    }
    assert.deepEqual(m.events, ["nmi 0", "init 0", "startup 0 154"]);
    assert.deepEqual(m.drain(), [0x41]);
  });

  test("TMR follows the latest request; both triggers on one vector are counted, not fatal", () => {
    const m = new ApicMachine().enable();
    m.apic.deliver(FIXED, 0x41, true);
    assert.equal(m.read(0x1a0), 2);
    assert.deepEqual(m.anomalies, []);
    m.apic.deliver(FIXED, 0x41, false);
    assert.equal(m.read(0x1a0), 0);
    assert.equal(m.anomalies.length, 1);
  });

  test("each change of IRR and ISR is traced", () => {
    const m = new ApicMachine().enable();
    m.apic.deliver(FIXED, 0x41, true);
    m.apic.acknowledge();
    m.eoi();
    assert.deepEqual(m.traces, ["lapic0: IRR level 65", "lapic0: IRR -> ISR 65", "lapic0: EOI 65"]);
  });

  test("ExtINT as a message waits until the 8259 is acknowledged", () => {
    const m = new ApicMachine();
    assert.equal(m.apic.deliver(DeliveryMode.EXTINT, 0, false), false);
    assert.equal(m.apic.extIntPending(), false, "disabled by software, which takes no such messages (11.4.7.2)");
    m.enable();
    assert.equal(m.apic.deliver(DeliveryMode.EXTINT, 0, false), true);
    assert.equal(m.apic.extIntPending(), true);
    m.apic.extIntAccepted();
    assert.equal(m.apic.extIntPending(), false);
  });
});

describe("interrupt command register (11.6.1)", () => {
  test("the table of legal combinations, all of them", () => {
    for (let mode = 0; mode < 8; mode++) {
      for (let shorthand = 0; shorthand < 4; shorthand++) {
        for (const level of [false, true]) {
          for (const assert_ of [false, true]) {
            const toSelf = shorthand === Shorthand.SELF || shorthand === Shorthand.ALL;
            const triggerGood = !level || assert_;
            let expected: string;
            if (mode === 5 && level && !assert_) expected = "deassert";
            else if (mode === 0) expected = triggerGood ? "send" : "invalid";
            else if (mode === 1 || mode === 2 || mode === 4 || mode === 5)
              expected = !toSelf && triggerGood ? "send" : "invalid";
            else if (mode === 6) expected = toSelf ? "invalid" : "send";
            else if (mode === 3) expected = !level && shorthand === Shorthand.NONE ? "send" : "invalid";
            else expected = "invalid";
            const low = 0x40 | (mode << 8) | (assert_ ? 1 << 14 : 0) | (level ? 1 << 15 : 0) | (shorthand << 18);
            assert.equal(dispositionOf(decodeIcr(low)), expected, low.toString(16));
          }
        }
      }
    }
  });

  test("shorthands: self, all, all but self; IPIs are counted at both ends", () => {
    const m = new ApicMachine({ ids: [0, 1, 2] }).enable();
    m.write(0x300, 0x40041, 1);
    assert.deepEqual(m.requestedAt(0x41), [1]);
    m.write(0x300, 0x80052, 1);
    assert.deepEqual(m.requestedAt(0x52), [0, 1, 2]);
    m.write(0x300, 0xc0063, 1);
    assert.deepEqual(m.requestedAt(0x63), [0, 2]);
    assert.equal(m.apics[1].statistics.ipisSent, 3);
    assert.equal(m.apics[1].statistics.ipisReceived, 2);
    assert.equal(m.apics[2].statistics.ipisReceived, 2);
    assert.equal(m.read(0x300, 1), 0xc0063);
  });

  test("a level IPI goes out as an edge (table 11-3, note 2)", () => {
    const m = new ApicMachine().enable();
    m.write(0x300, 0x4c041);
    assert.equal(m.apic.pendingVector(), 0x41);
    assert.equal(m.read(0x1a0), 0);
  });

  test("what is invalid is not sent, and counted; INIT de-assert is nothing", () => {
    const m = new ApicMachine({ ids: [0, 1] }).enable();
    m.write(0x310, 1 << 24);
    m.write(0x300, 0x8500); // INIT, level, de-assert
    assert.deepEqual(m.anomalies, []);
    m.write(0x300, 0x44400); // NMI to self
    m.write(0x300, 0x8041); // fixed, level, de-assert
    m.write(0x300, 0x0741); // reserved mode
    assert.equal(m.anomalies.length, 3);
    assert.deepEqual(m.events, []);
    m.write(0x300, 0x0200); // SMI is sent, and counted at the target
    m.write(0x300, 0x0300); // remote read likewise
    assert.deepEqual(m.anomalies.slice(3), [
      "lapic1: SMI (there is no system management mode)",
      "lapic1: delivery mode 3",
    ]);
  });

  test("bringing up an application processor: INIT, INIT de-assert, start-up twice (9.4.4.1)", () => {
    for (const x2apic of [false, true]) {
      const m = new ApicMachine({ ids: [0, 1] });
      if (x2apic) m.x2apic();
      m.enable();
      const send = (low: number) => {
        if (x2apic) assert.equal(m.apic.writeX2apic(0x30, (1n << 32n) | BigInt(low)), true);
        else {
          m.write(0x310, 1 << 24);
          m.write(0x300, low);
        }
      };
      for (const low of [0xc500, 0x8500, 0x0699, 0x0699]) send(low);
      assert.deepEqual(m.events, ["init 1", "startup 1 153", "startup 1 153"]);
    }
  });

  test("NMI to all but self", () => {
    const m = new ApicMachine({ ids: [0, 1, 2] }).enable();
    m.write(0x300, 0xc0400);
    assert.deepEqual(m.events, ["nmi 1", "nmi 2"]);
  });

  test("nothing reaches an APIC that is disabled globally", () => {
    const m = new ApicMachine({ ids: [0, 1] }).enable();
    m.apics[1].writeBase(0xfee00000n);
    m.write(0x300, 0xc0400);
    m.write(0x310, 0xff000000);
    m.write(0x300, 0x0500);
    assert.deepEqual(m.events, ["init 0"]);
  });
});

describe("lowest priority (11.6.2.4)", () => {
  test("goes to the lowest, not to who is disabled by software, and round among equals", () => {
    const m = new ApicMachine({ ids: [0, 1, 2, 3] }).enable();
    for (let i = 0; i < 4; i++) m.write(0xd0, 1 << (24 + i), i);
    m.write(0x80, 0x40, 0);
    m.write(0x80, 0x20, 1);
    m.write(0x80, 0x30, 2);
    m.write(0xf0, 0xff, 3);
    const send = (vector: number) => {
      m.write(0x310, 0x0f000000);
      m.write(0x300, 0x0900 | vector);
    };
    send(0x81);
    assert.deepEqual(m.requestedAt(0x81), [1]);
    // The request itself raises its arbitration priority.
    send(0x82);
    assert.deepEqual(m.requestedAt(0x82), [2]);
    for (let i = 0; i < 4; i++) {
      m.drain(i);
      m.write(0x80, 0, i);
      m.write(0xf0, 0x1ff, i);
    }
    const order: number[] = [];
    for (let i = 0; i < 8; i++) {
      send(0x90);
      order.push(...m.requestedAt(0x90));
      for (let position = 0; position < 4; position++) m.drain(position);
    }
    assert.deepEqual(order, [3, 0, 1, 2, 3, 0, 1, 2]);
  });
});

test("a disabled APIC lets LINT0 through as INTR, and the vCPU is told where it was raised before", () => {
  const m = new ApicMachine().enable();
  m.apic.setLint(0, true);
  assert.equal(m.apic.extIntPending(), false);
  const { kicks } = m;
  m.apic.writeBase(0xfee00100n);
  assert.equal(m.apic.extIntPending(), true);
  assert.ok(m.kicks > kicks);
});
