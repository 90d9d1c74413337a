// The memory map: what must hold for every size of memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { buildE820, E820, HIGH_RAM_BASE, MINIMUM_MEMORY, PCI_HOLE_BASE } from "../../src/firmware/e820.ts";

const PAGE = 0x1000;
const GIB = 1024 ** 3;
const ECAM = { base: 0xe0000000, length: 0x10000000 };
const LEGACY_HOLE = 0x60000 + 0x400;

const layouts = fc.record({
  memoryBytes: fc
    .oneof(
      fc.integer({ min: MINIMUM_MEMORY / PAGE, max: (4 * GIB) / PAGE }),
      fc.integer({ min: 1024, max: (512 * GIB) / PAGE }),
    )
    .map((pages) => pages * PAGE),
  acpiBytes: fc.integer({ min: 1, max: 64 }).map((pages) => pages * PAGE),
  nvsBytes: fc.constantFrom(0, PAGE),
  reserved: fc.constant([ECAM]),
});

test("entries ascend without overlap, RAM stays out of the PCI hole, and no byte of memory is lost", () => {
  fc.assert(
    fc.property(layouts, (layout) => {
      const entries = buildE820(layout);
      entries.reduce((end, entry) => {
        assert.ok(entry.length > 0 && entry.base >= end);
        return entry.base + entry.length;
      }, 0);
      const total = (type: number) => entries.filter((e) => e.type === type).reduce((sum, e) => sum + e.length, 0);
      for (const { base, length, type } of entries) {
        if (type === E820.ram) assert.ok(base + length <= PCI_HOLE_BASE || base >= HIGH_RAM_BASE);
      }
      assert.equal(total(E820.acpi), layout.acpiBytes);
      assert.equal(total(E820.nvs), layout.nvsBytes);
      // All but the legacy area between 639 KiB and 1 MiB and the tables is usable.
      assert.equal(total(E820.ram), layout.memoryBytes - LEGACY_HOLE - layout.acpiBytes - layout.nvsBytes);
      const top = Math.min(layout.memoryBytes, PCI_HOLE_BASE);
      assert.ok(entries.some((e) => e.base + e.length === top));
      assert.equal(
        entries.some((e) => e.base === HIGH_RAM_BASE),
        layout.memoryBytes > PCI_HOLE_BASE,
      );
    }),
  );
});

test("memory that is too small or no whole number of pages is refused", () => {
  assert.throws(() => buildE820({ memoryBytes: MINIMUM_MEMORY - PAGE, acpiBytes: PAGE, nvsBytes: 0 }), RangeError);
  assert.throws(() => buildE820({ memoryBytes: MINIMUM_MEMORY + 1, acpiBytes: PAGE, nvsBytes: 0 }), RangeError);
  assert.throws(() => buildE820({ memoryBytes: MINIMUM_MEMORY, acpiBytes: MINIMUM_MEMORY, nvsBytes: 0 }), RangeError);
});
