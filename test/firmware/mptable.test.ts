// MP table: an independent walk over its entries.

import assert from "node:assert/strict";
import { test } from "node:test";
import { buildFirmware } from "../../src/firmware/firmware.ts";
import { apicIds, firmwareConfig, sumOf, text } from "./machine.ts";

const LENGTHS = [20, 8, 8, 8, 8];

test("pointer, sums, processors, LINT0 as ExtINT, LINT1 as NMI, IRQ 0 at input 2", () => {
  const firmware = buildFirmware(firmwareConfig({ cpus: apicIds(300) }));
  const pointer = firmware.writes.find((w) => text(w.bytes.subarray(0, 4)) === "_MP_");
  assert.ok(pointer);
  assert.ok(pointer.gpa >= 0xf0000 && pointer.gpa % 16 === 0);
  assert.equal(sumOf(pointer.bytes), 0);
  const table = firmware.writes.find((w) => w.gpa === new DataView(pointer.bytes.buffer).getUint32(4, true))?.bytes;
  assert.ok(table);
  const view = new DataView(table.buffer);
  assert.equal(text(table.subarray(0, 4)), "PCMP");
  assert.equal(view.getUint16(4, true), table.length);
  assert.equal(sumOf(table), 0);

  const entries: number[][][] = [[], [], [], [], []];
  let count = 0;
  let at = 44;
  for (; at < table.length; at += LENGTHS[table[at]]) {
    entries[table[at]].push([...table.subarray(at, at + LENGTHS[table[at]])]);
    count++;
  }
  assert.equal(at, table.length);
  assert.equal(view.getUint16(34, true), count);
  const [processors, buses, ioApics, interrupts, local] = entries;
  assert.deepEqual(
    processors.map((p) => p[1]),
    apicIds(255),
  );
  assert.deepEqual(
    processors.filter((p) => (p[3] & 2) !== 0).map((p) => p[1]),
    [0],
  );
  assert.equal(buses.length, 2);
  assert.equal(ioApics.length, 1);
  assert.deepEqual(interrupts.find((e) => e[4] === 1 && e[5] === 0)?.slice(6), [0, 2]);
  assert.ok(!interrupts.some((e) => e[4] === 1 && e[7] === 0));
  assert.deepEqual(
    local.map((e) => [e[1], e[6], e[7]]),
    [
      [3, 0xff, 0],
      [1, 0xff, 1],
    ],
  );
  // Device 3, INTB.
  assert.deepEqual(interrupts.find((e) => e[4] === 0 && e[5] === ((3 << 2) | 1))?.slice(2, 4), [0x0f, 0]);
});
