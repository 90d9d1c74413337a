// Message signalled interrupts: SDM Vol. 3A 11.11.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ApicMachine } from "./apic-machine.ts";

const ADDRESS = 0xfee00000n;

function machine(): ApicMachine {
  const m = new ApicMachine({ ids: [0, 1, 2] }).enable();
  for (let i = 0; i < 3; i++) m.write(0xd0, 1 << (24 + i), i);
  return m;
}

describe("MSI", () => {
  test("physical and logical destination, broadcast", () => {
    const m = machine();
    m.msi.sendMsi(ADDRESS | (2n << 12n), 0x41);
    assert.deepEqual(m.requestedAt(0x41), [2]);
    m.msi.sendMsi(ADDRESS | (6n << 12n) | 4n, 0x4052);
    assert.deepEqual(m.requestedAt(0x52), [1, 2]);
    m.msi.sendMsi(ADDRESS | (0xffn << 12n), 0x63);
    assert.deepEqual(m.requestedAt(0x63), [0, 1, 2]);
    assert.deepEqual(m.anomalies, []);
  });

  test("lowest priority, by mode or by redirection hint: one of the group", () => {
    const m = machine();
    m.write(0x80, 0x30, 0);
    m.write(0x80, 0x30, 1);
    m.msi.sendMsi(ADDRESS | (7n << 12n) | 4n, 0x141);
    assert.deepEqual(m.requestedAt(0x41), [2]);
    m.drain(2);
    m.msi.sendMsi(ADDRESS | (7n << 12n) | 0xcn, 0x42);
    assert.deepEqual(m.requestedAt(0x42), [2]);
  });

  test("NMI, INIT, ExtINT and level", () => {
    const m = machine();
    m.msi.sendMsi(ADDRESS | (1n << 12n), 0x400);
    m.msi.sendMsi(ADDRESS | (1n << 12n), 0x500);
    m.msi.sendMsi(ADDRESS | (1n << 12n), 0x700);
    assert.deepEqual(m.events, ["nmi 1", "init 1"]);
    assert.equal(m.apics[1].extIntPending(), true);
    m.msi.sendMsi(ADDRESS, 0x8041); // de-assertion
    assert.equal(m.apic.pendingVector(), -1);
    m.msi.sendMsi(ADDRESS, 0xc041);
    assert.equal(m.read(0x1a0), 2);
    assert.deepEqual(m.drain(), [0x41]);
    assert.deepEqual(m.anomalies, []);
  });

  test("to nobody: dropped", () => {
    const m = machine();
    m.msi.sendMsi(ADDRESS | (9n << 12n), 0x41);
    m.apics[1].writeBase(0xfee00000n);
    m.msi.sendMsi(ADDRESS | (1n << 12n), 0x41);
    assert.equal(m.router.statistics.undelivered, 2);
  });

  test("malformed ones are counted and do nothing", () => {
    const m = machine();
    const before = m.router.statistics.messages;
    m.msi.sendMsi(0xfed00000n, 0x41);
    m.msi.sendMsi(0x1_fee00000n, 0x41);
    m.msi.sendMsi(0n, 0);
    m.msi.sendMsi(ADDRESS, 0x341);
    m.msi.sendMsi(ADDRESS, 0x641);
    assert.equal(m.anomalies.length, 5);
    assert.equal(m.router.statistics.messages, before);
  });

  test("an illegal vector sets Receive Illegal Vector where it arrives, and is counted (11.5.3)", () => {
    for (const data of [0x00f, 0x000, 0x10f, 0xc00f]) {
      const m = machine();
      m.write(0x370, 0xfe, 1);
      m.msi.sendMsi(ADDRESS | (1n << 12n), data);
      assert.equal(m.anomalies.length, 1);
      assert.deepEqual(m.drain(1), [0xfe], "the error interrupt, and nothing else");
      for (const [id, errors] of [0, 0x40, 0].entries()) {
        m.write(0x280, 0, id);
        assert.equal(m.read(0x280, id), errors, `ESR of ${id}, data ${data.toString(16)}`);
      }
    }
  });

  test("extended destination ids: address bits 11:5", () => {
    const m = new ApicMachine({ ids: [0x1205], extendedDestinationIds: true }).x2apic().enable();
    m.msi.sendMsi(ADDRESS | (5n << 12n) | (0x12n << 5n), 0x41);
    assert.equal(m.apic.pendingVector(), 0x41);
    const plain = new ApicMachine({ ids: [5] }).enable();
    plain.msi.sendMsi(ADDRESS | (5n << 12n) | (0x12n << 5n), 0x41);
    assert.equal(plain.apic.pendingVector(), 0x41);
  });
});
