// Registers of the local APIC: SDM Vol. 3A 11.4 to 11.8, 11.12, register by register.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ApicMode } from "../../../src/vmm/io/destination.ts";
import { Lvt } from "../../../src/vmm/io/lapic-registers.ts";
import { ApicMachine } from "./apic-machine.ts";

const ENABLE = 1n << 11n;
const EXTENDED = 1n << 10n;

describe("local APIC registers in xAPIC mode", () => {
  test("state after power-up (11.4.7.1)", () => {
    const m = new ApicMachine({ ids: [3] });
    assert.equal(m.read(0x20), 3 << 24);
    assert.equal(m.read(0x80), 0);
    assert.equal(m.read(0xd0), 0);
    assert.equal(m.read(0xe0), 0xffffffff);
    assert.equal(m.read(0xf0), 0xff);
    for (let offset = 0x100; offset < 0x280; offset += 0x10) assert.equal(m.read(offset), 0);
    for (const offset of [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370]) assert.equal(m.read(offset), 0x10000);
    for (const offset of [0x280, 0x300, 0x310, 0x380, 0x390, 0x3e0]) assert.equal(m.read(offset), 0);
    assert.deepEqual(m.anomalies, []);
  });

  test("version 14H, seven LVT entries, EOI broadcast suppression (11.4.8)", () => {
    assert.equal(new ApicMachine().read(0x30), 0x01060014);
  });

  test("the id cannot be changed, read-only registers are left alone", () => {
    const m = new ApicMachine({ ids: [5] }).enable();
    for (const offset of [0x20, 0x30, 0x90, 0xa0, 0xc0, 0x100, 0x180, 0x200, 0x390]) {
      const before = m.read(offset);
      m.write(offset, 0xffffffff);
      assert.equal(m.read(offset), before);
    }
    assert.equal(m.anomalies.length, 9);
  });

  test("reserved bits of writable registers are ignored", () => {
    const m = new ApicMachine().enable();
    const cases: [number, number][] = [
      [0x80, 0xff],
      [0xd0, 0xff000000],
      [0xe0, 0xffffffff],
      [0xf0, 0x13ff],
      [0x310, 0xff000000],
      [0x2f0, 0x107ff],
      [0x320, 0x700ff],
      [0x330, 0x107ff],
      [0x340, 0x107ff],
      [0x350, 0x1a7ff],
      [0x360, 0x1a7ff],
      [0x370, 0x100ff],
      [0x3e0, 0xb],
    ];
    for (const [offset, value] of cases) {
      m.write(offset, 0xffffffff);
      assert.equal(m.read(offset), value, offset.toString(16));
    }
    m.write(0xe0, 0);
    assert.equal(m.read(0xe0), 0x0fffffff);
  });

  test("accesses to a part of a register (11.4.1)", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0x5a);
    assert.equal(m.apic.readMmio(0x80, 1), 0x5a);
    assert.equal(m.apic.readMmio(0x30, 2), 0x0014);
    assert.equal(m.apic.readMmio(0x32, 1), 0x06);
    assert.deepEqual(m.anomalies, []);
    assert.equal(m.apic.readMmio(0x84, 4), 0);
    assert.equal(m.apic.readMmio(0x33, 2), 0);
    m.apic.writeMmio(0x80, 1, 0x11);
    m.apic.writeMmio(0x82, 4, 0x11);
    assert.equal(m.read(0x80), 0x5a);
    assert.equal(m.anomalies.length, 4);
  });

  test("a reserved address is an illegal register access (11.5.3)", () => {
    const m = new ApicMachine().enable();
    m.read(0x40);
    m.write(0x3f0, 0x40); // SELF IPI exists in x2APIC mode only
    assert.equal(m.apic.pendingVector(), -1);
    assert.equal(m.read(0x280), 0);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0x80);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0);
    m.read(0x90); // APR and RRD are no error
    m.read(0xc0);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0);
  });

  test("TPR and CR8 are the same (11.8.6)", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0x57);
    assert.equal(m.apic.readCr8(), 5);
    assert.equal(m.apic.writeCr8(9), true);
    assert.equal(m.read(0x80), 0x90);
    assert.equal(m.apic.writeCr8(0x10), false);
    assert.equal(m.apic.writeCr8(1, 1), false);
    assert.equal(m.read(0x80), 0x90);
  });

  test("LVT masks cannot be cleared while disabled by software; disabling sets them (11.4.7.2)", () => {
    const m = new ApicMachine();
    m.write(0x350, 0x700);
    assert.equal(m.read(0x350), 0x10700);
    m.enable();
    const lvts = [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
    for (const offset of lvts) m.write(offset, 0x40);
    for (const offset of lvts) assert.equal(m.read(offset), 0x40);
    m.write(0xf0, 0xff);
    for (const offset of lvts) assert.equal(m.read(offset), 0x10040);
    m.enable();
    for (const offset of lvts) assert.equal(m.read(offset), 0x10040);
  });
});

describe("IA32_APIC_BASE (11.12.5, figure 11-27)", () => {
  test("bootstrap flag, address and mode after reset", () => {
    const m = new ApicMachine({ ids: [0, 1] });
    assert.equal(m.apics[0].readBase(), 0xfee00900n);
    assert.equal(m.apics[1].readBase(), 0xfee00800n);
  });

  test("every transition between the three modes", () => {
    const DISABLED = 0xfee00000n;
    const XAPIC = DISABLED | ENABLE;
    const X2APIC = XAPIC | EXTENDED;
    const paths = { disabled: [DISABLED], xapic: [XAPIC], x2apic: [XAPIC, X2APIC] };
    const legal: { [from: string]: bigint[] } = {
      disabled: [DISABLED, XAPIC],
      xapic: [DISABLED, XAPIC, X2APIC],
      x2apic: [DISABLED, X2APIC],
    };
    for (const [from, path] of Object.entries(paths)) {
      for (const to of [DISABLED, XAPIC, X2APIC, DISABLED | EXTENDED]) {
        const { apic } = new ApicMachine();
        for (const step of path) assert.equal(apic.writeBase(step), true);
        const before = apic.readBase();
        const good = legal[from].includes(to);
        assert.equal(apic.writeBase(to), good, `${from} to ${to.toString(16)}`);
        assert.equal(apic.readBase(), good ? to : before);
      }
    }
  });

  test("reserved bits are refused, the page moves and says so", () => {
    const moves: [number, number][] = [];
    const m = new ApicMachine({
      apic: { onBaseChanged: (base, mode) => moves.push([base, mode]), physicalAddressBits: 36 },
    });
    for (const bit of [0n, 7n, 9n, 36n, 63n]) assert.equal(m.apic.writeBase(0xfee00800n | (1n << bit)), false);
    assert.equal(m.apic.writeBase(0x8_1234_5800n), true);
    assert.equal(m.apic.writeBase(0x8_1234_5000n), true);
    assert.deepEqual(moves, [
      [0xfee00000, ApicMode.XAPIC],
      [0x8_1234_5000, ApicMode.XAPIC],
      [0x8_1234_5000, ApicMode.DISABLED],
    ]);
    const without = new ApicMachine({ apic: { x2apic: false } });
    assert.equal(without.apic.writeBase(0xfee00c00n), false);
  });

  test("a global disable loses the set-up and all interrupts (11.4.3)", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0x20);
    m.apic.deliver(0, 0x55, false);
    m.apic.writeBase(0xfee00000n);
    assert.equal(m.apic.deliver(4, 0, false), false);
    m.apic.writeBase(0xfee00800n);
    assert.equal(m.apic.pendingVector(), -1);
    assert.equal(m.read(0x80), 0);
    assert.equal(m.read(0xf0), 0xff);
  });

  test("each interface answers in its own mode only", () => {
    const m = new ApicMachine().enable();
    assert.equal(m.apic.readX2apic(0x08), undefined);
    assert.equal(m.apic.writeX2apic(0x08, 0n), false);
    m.x2apic();
    assert.equal(m.read(0x30), 0);
    m.write(0x80, 0x30);
    assert.equal(m.apic.readX2apic(0x08), 0n);
    m.apic.writeBase(0xfee00000n);
    assert.equal(m.apic.readX2apic(0x08), undefined);
    assert.equal(m.read(0x30), 0);
  });

  test("INIT keeps id, address and mode and resets the rest; LDR stays derived in x2APIC mode (11.4.7.3, 11.12.5.1)", () => {
    const m = new ApicMachine({ ids: [0x25] }).x2apic().enable();
    const { apic } = m;
    apic.writeX2apic(0x08, 0x40n);
    apic.writeX2apic(0x32, 0x30n);
    apic.writeX2apic(0x38, 1000n);
    apic.deliver(0, 0x77, true);
    const base = apic.readBase();
    apic.init();
    assert.equal(apic.readBase(), base);
    assert.equal(apic.readX2apic(0x02), 0x25n);
    assert.equal(apic.readX2apic(0x0d), 0x20020n);
    assert.equal(apic.readX2apic(0x0f), 0xffn);
    assert.equal(apic.readX2apic(0x08), 0n);
    assert.equal(apic.readX2apic(0x32), 0x10000n);
    assert.equal(apic.readX2apic(0x38), 0n);
    for (let index = 0x10; index < 0x28; index++) assert.equal(apic.readX2apic(index), 0n);
    assert.equal(m.timers.next(), Number.POSITIVE_INFINITY);
  });
});

describe("local APIC registers in x2APIC mode (11.12.1, table 11-6)", () => {
  const READ_ONLY = [0x02, 0x03, 0x0a, 0x0d, 0x39];
  for (let index = 0x10; index < 0x28; index++) READ_ONLY.push(index);
  const WRITABLE = [0x08, 0x0f, 0x28, 0x2f, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e];
  const WRITE_ONLY = [0x0b, 0x3f];

  test("which registers can be read and written", () => {
    const m = new ApicMachine().x2apic().enable();
    for (let index = 0; index < 0x400; index++) {
      const readable = READ_ONLY.includes(index) || WRITABLE.includes(index);
      const writable = WRITABLE.includes(index) || WRITE_ONLY.includes(index);
      assert.equal(m.apic.readX2apic(index) !== undefined, readable, `read ${index.toString(16)}`);
      assert.equal(m.apic.writeX2apic(index, 0n), writable, `write ${index.toString(16)}`);
      if (index === 0x0f) m.enable();
    }
  });

  test("a reserved bit is #GP(0), bit by bit", () => {
    const allowed: { [index: number]: bigint } = {
      8: 0xffn,
      11: 0n,
      15: 0x13ffn,
      40: 0n,
      47: 0x117ffn,
      48: 0xffffffff000cdfffn,
      50: 0x710ffn,
      51: 0x117ffn,
      52: 0x117ffn,
      53: 0x1f7ffn,
      54: 0x1f7ffn,
      55: 0x110ffn,
      56: 0xffffffffn,
      62: 0xbn,
      63: 0xffn,
    };
    for (const [index, mask] of Object.entries(allowed)) {
      for (let bit = 0n; bit < 64n; bit++) {
        const { apic } = new ApicMachine().x2apic().enable();
        assert.equal(apic.writeX2apic(Number(index), 1n << bit), (mask & (1n << bit)) !== 0n, `${index} bit ${bit}`);
      }
    }
  });

  test("without TSC-deadline mode bit 18 of the timer entry is reserved (11.5.4.1)", () => {
    const m = new ApicMachine({ apic: { tscDeadline: false } }).enable();
    m.write(0x320, 0x40030);
    assert.equal(m.read(0x320), 0x30);
    m.x2apic();
    assert.equal(m.apic.writeX2apic(0x32, 0x40030n), false);
    assert.equal(m.apic.writeX2apic(0x32, 0x20030n), true);
  });

  test("id of 32 bits, LDR derived from it (11.12.10.2)", () => {
    const m = new ApicMachine({ ids: [0x12345] }).x2apic();
    assert.equal(m.apic.readX2apic(0x02), 0x12345n);
    assert.equal(m.apic.readX2apic(0x0d), 0x12340020n);
  });

  test("the ICR is one register of 64 bits; its delivery status never sticks", () => {
    const m = new ApicMachine({ ids: [0, 9] }).x2apic().enable();
    assert.equal(m.apic.writeX2apic(0x30, 0x9_0000_1041n), true);
    assert.equal(m.apic.readX2apic(0x30), 0x9_0000_0041n);
    assert.equal(m.apics[1].pendingVector(), 0x41);
  });

  test("SELF IPI is an edge to oneself (11.12.11)", () => {
    const m = new ApicMachine().x2apic().enable();
    m.apic.writeX2apic(0x3f, 0x61n);
    assert.equal(m.apic.pendingVector(), 0x61);
    assert.equal(m.apic.readX2apic(0x1b), 0n);
    m.apic.writeX2apic(0x3f, 0x0fn);
    m.apic.writeX2apic(0x28, 0n);
    assert.equal(m.apic.readX2apic(0x28), 0x20n);
  });

  test("a switch from xAPIC mode keeps what is pending", () => {
    const m = new ApicMachine().enable();
    m.write(0x80, 0x10);
    m.apic.deliver(0, 0x91, false);
    m.x2apic();
    assert.equal(m.apic.readX2apic(0x08), 0x10n);
    assert.equal(m.apic.pendingVector(), 0x91);
  });
});

describe("local vector table and errors (11.5)", () => {
  test("fixed, NMI and INIT through LINT1; SMI is counted", () => {
    const m = new ApicMachine().enable();
    for (const value of [0x45, 0x400, 0x500, 0x200]) {
      m.write(0x360, value);
      m.apic.setLint(1, true);
      m.apic.setLint(1, true);
      m.apic.setLint(1, false);
    }
    assert.equal(m.apic.pendingVector(), 0x45);
    assert.deepEqual(m.events, ["nmi 0", "init 0"]);
    assert.equal(m.anomalies.length, 1);
  });

  test("LINT0 level: remote IRR until the EOI, taken again while asserted, and after a change of the entry", () => {
    const m = new ApicMachine().enable();
    m.write(0x350, 0x8052);
    m.apic.setLint(0, true);
    assert.equal(m.read(0x350), 0xc052);
    assert.equal(m.apic.acknowledge(), 0x52);
    assert.equal(m.apic.pendingVector(), -1);
    m.eoi();
    assert.equal(m.apic.acknowledge(), 0x52);
    m.apic.setLint(0, false);
    m.eoi();
    assert.equal(m.apic.pendingVector(), -1);
    assert.equal(m.read(0x350), 0x8052);
    m.write(0x350, 0x18052);
    m.apic.setLint(0, true);
    assert.equal(m.apic.pendingVector(), -1);
    m.write(0x350, 0x8053);
    assert.equal(m.apic.pendingVector(), 0x53);
    m.write(0x350, 0x53);
    assert.equal(m.read(0x350), 0x53);
  });

  test("ExtINT: the 8259 is heard through LINT0 unmasked in ExtINT mode, or with the APIC disabled", () => {
    const m = new ApicMachine();
    m.apic.setLint(0, true);
    assert.equal(m.apic.extIntPending(), false);
    m.enable();
    m.write(0x350, 0x10700);
    assert.equal(m.apic.extIntPending(), false);
    m.kicks = 0;
    m.write(0x350, 0x700);
    assert.equal(m.kicks, 1);
    assert.equal(m.apic.extIntPending(), true);
    m.apic.setLint(0, false);
    assert.equal(m.apic.extIntPending(), false);
    m.apic.setLint(0, true);
    assert.equal(m.apic.extIntPending(), true);
    m.write(0xf0, 0xff);
    assert.equal(m.apic.extIntPending(), false);
    m.apic.writeBase(0xfee00000n);
    assert.equal(m.apic.extIntPending(), true);
    m.apic.setLint(1, true);
    assert.deepEqual(m.events, ["nmi 0"]);
  });

  test("the performance entry masks itself, CMCI and thermal do not; external triggers reach all", () => {
    const m = new ApicMachine().enable();
    m.write(0x340, 0x400);
    m.write(0x330, 0x34);
    m.write(0x2f0, 0x35);
    m.apic.triggerLocal(Lvt.PERFORMANCE);
    m.apic.triggerLocal(Lvt.PERFORMANCE);
    m.apic.triggerLocal(Lvt.THERMAL);
    m.apic.triggerLocal(Lvt.CMCI);
    assert.deepEqual(m.events, ["nmi 0"]);
    assert.equal(m.read(0x340), 0x10400);
    assert.deepEqual(m.drain(), [0x35, 0x34]);
    m.write(0x330, 0x700);
    m.apic.triggerLocal(Lvt.THERMAL);
    assert.equal(m.anomalies.length, 1);
  });

  test("a global NMI is LINT1 of every vCPU", () => {
    const m = new ApicMachine({ ids: [0, 1, 2] }).enable();
    m.write(0x360, 0x400, 0);
    m.write(0x360, 0x400, 2);
    m.router.triggerLocal(Lvt.LINT1);
    assert.deepEqual(m.events, ["nmi 0", "nmi 2"]);
  });

  test("illegal vectors set the ESR and raise the error interrupt once until the ESR is written (11.5.3)", () => {
    const m = new ApicMachine().enable();
    m.write(0x370, 0xfe);
    m.write(0x300, 0x4000f | (1 << 18));
    m.write(0x300, 0x4000f);
    assert.deepEqual(m.drain(), [0xfe]);
    m.apic.deliver(0, 0x05, false);
    assert.deepEqual(m.drain(), [0xfe]);
    m.apic.deliver(0, 0x05, false);
    assert.deepEqual(m.drain(), []);
    assert.equal(m.read(0x280), 0);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0x60);
    m.apic.deliver(0, 0x05, false);
    assert.deepEqual(m.drain(), [0xfe]);
  });

  test("an illegal vector in the error entry itself does not recurse", () => {
    const m = new ApicMachine().enable();
    m.write(0x370, 0x03);
    m.apic.deliver(0, 0x05, false);
    m.write(0x280, 0);
    m.read(0x40);
    m.write(0x280, 0);
    assert.equal(m.read(0x280), 0xc0);
    assert.equal(m.apic.pendingVector(), -1);
  });
});
