// The same semantics with constant operands: what the record decides is decided while the code is written.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { HandlerSpec } from "../../src/cpu/handlers.ts";
import { RECORD } from "../../src/cpu/layout.ts";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { DYNAMIC_FLAGS, RegionCode, type RegionParts } from "../../src/cpu/translator/region-code.ts";
import { HANDLER_TYPE } from "../../src/cpu/translator/region-jump.ts";
import { ConditionalFlags, RecordConstants, TranslatorSemantics } from "../../src/cpu/translator/semantics.ts";
import { decodeHandlers, HANDLER_SECTION, SUPPORT } from "../../src/cpu/translator/support.ts";
import { RIP } from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { Code } from "../../src/wasm/code.ts";
import { ModuleBuilder } from "../../src/wasm/module.ts";
import { AT, Rig } from "./rig.ts";

const handlers = decodeHandlers(
  INSTRUCTIONS,
  WebAssembly.Module.customSections(engineModule(), HANDLER_SECTION)[0] as ArrayBuffer,
);

/** Translates one instruction by itself; what came of it. */
function translate(bytes: readonly number[]): { length: number; flags: string; support: readonly string[] } {
  const rig = new Rig(undefined, {}, undefined).longMode();
  rig.write(AT.CODE, [...bytes, 0xf4]);
  rig.engine.set(RIP, AT.CODE);
  const record = (Reflect.get(rig.engine, "exports") as { lookup(): number }).lookup;
  (Reflect.get(rig.engine, "view") as DataView).setInt32(0x3000, 100, true);
  const at = record();
  const view = new DataView(rig.engine.memory.buffer);
  const m = new ModuleBuilder();
  const support: string[] = [];
  const parts: RegionParts = {
    cpu: m.importMemory("t", "cpu", { min: 1 }),
    ram: m.importMemory("t", "ram", { min: 1 }),
    table: m.importTable("t", "table", 0),
    support: (name, type) => {
      support.push(name);
      return m.importFunc("t", name, type.params, type.results);
    },
    func: () => assert.fail("a helper is called"),
    slowLoad: () => assert.fail("a slow path"),
    slowStore: () => assert.fail("a slow path"),
    slowLocked: () => assert.fail("a slow path"),
    get probeWrite() {
      return assert.fail("a slow path");
    },
    tlbIndexMask: 0x7ff8,
    tlbMasks: [0n, 1n, 3n, 7n, 15n],
  };
  const c = new Code(m, HANDLER_TYPE);
  const region = new RegionCode(c, parts, [BigInt(AT.CODE)], 0, new Map());
  let length = 0;
  let flags = "";
  region.write([0], [0], () => {
    const before = c.length;
    region.flags = DYNAMIC_FLAGS;
    const spec = handlers[view.getUint16(at + RECORD.HANDLER, true)] as HandlerSpec;
    new TranslatorSemantics(region, new RecordConstants(view, at, { block: 0, distance: 0 }), spec, false).emit();
    length = c.length - before;
    flags = region.flags.source.kind;
  });
  return { length, flags, support: support.filter((name) => name !== SUPPORT.SPILL_FLAGS) };
}

test("moves between registers and of immediates are a few bytes", () => {
  // mov rax, rcx: get, set; twice, as what is read is fixed
  assert.ok(translate([0x48, 0x89, 0xc8]).length <= 8);
  // mov eax, 5
  assert.ok(translate([0xb8, 5, 0, 0, 0]).length <= 4);
  // mov ah, 5 and movzx eax, ah reach into the register
  assert.ok(translate([0xb4, 5]).length <= 20);
});

test("flags are remembered, not computed", () => {
  const added = translate([0x48, 0x01, 0xc8]);
  assert.equal(added.flags, "add");
  assert.ok(added.length <= 20, `${added.length} bytes`);
  assert.equal(translate([0x39, 0xc8]).flags, "sub");
  assert.equal(translate([0x85, 0xc0]).flags, "logic");
  assert.equal(translate([0xff, 0xc0]).flags, "step");
});

test("a shift by zero changes no flags, and one by a constant does so without asking", () => {
  assert.equal(translate([0xc1, 0xe0, 0]).flags, "dynamic");
  assert.equal(translate([0xc1, 0xe0, 4]).flags, "parts");
  assert.throws(() => translate([0xd3, 0xe0]), ConditionalFlags);
});

test("addresses with and without index, scale and RIP are as long as what they add up", () => {
  const lea = (bytes: readonly number[]): number => translate(bytes).length;
  // lea rax, [rcx] < [rcx + 8] < [rcx + rdx * 4 + 8]
  assert.ok(lea([0x48, 0x8d, 0x01]) < lea([0x48, 0x8d, 0x41, 8]));
  assert.ok(lea([0x48, 0x8d, 0x41, 8]) < lea([0x48, 0x8d, 0x44, 0x91, 8]));
  assert.ok(lea([0x48, 0x8d, 0x05, 8, 0, 0, 0]) <= 16);
  // What the TLB has not got, or not aligned, is a call.
  assert.deepEqual(translate([0x8a, 0x01]).support, ["regionLoad8"]);
  assert.deepEqual(translate([0x8b, 0x01]).support, ["regionLoad32"]);
});
