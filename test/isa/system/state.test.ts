// FXSAVE and XSAVE images, MSRs, CPUID, time stamps, string I/O (SDM Vol. 1 10.5, 13; Vol. 2A CPUID).

import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuidTable, engineModel } from "../../../src/cpu/cpuid-leaves.ts";
import { CPU_MODEL_NAMES, CpuModelError, parseCpuModel } from "../../../src/cpu/model.ts";
import { EXIT } from "../../../src/isa/exit.ts";
import { FEATURES } from "../../../src/isa/features.ts";
import { CR4, CR4_BIT, FCW, FSW, FTW, MXCSR, TSC_ADJUST, VECTOR_BASE, X87_BASE, XCR0 } from "../../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../../src/isa/table.ts";
import { AT, type Rig } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";
import { execute, machine, quad, TOPOLOGY } from "./machine.ts";

/** Fills x87 and XMM registers by number. */
function fill(rig: Rig): DataView {
  const memory = (rig.engine as unknown as { memory: WebAssembly.Memory }).memory;
  const view = new DataView(memory.buffer);
  for (let n = 0; n < 16; n++) {
    view.setBigUint64(VECTOR_BASE + n * 64, BigInt(n) * 0x0101010101010101n, true);
    view.setBigUint64(VECTOR_BASE + n * 64 + 8, BigInt(n) + 0xf000n, true);
  }
  for (let n = 0; n < 8; n++) {
    view.setBigUint64(X87_BASE + n * 16, 0x8000000000000000n + BigInt(n), true);
    view.setBigUint64(X87_BASE + n * 16 + 8, BigInt(0x3fff + n), true);
  }
  rig.engine.set(FCW, 0x27f);
  rig.engine.set(FSW, 0x1000);
  rig.engine.set(FTW, 0xfc);
  rig.engine.set(MXCSR, 0x1fa0);
  return view;
}

test("FXSAVE writes registers in stack order, FXRSTOR reads them back", () => {
  const rig = machine().longMode();
  const view = fill(rig);
  const area = AT.DATA;
  execute(rig, `mov eax, ${area}; fxsave64 [rax]; hlt`);
  assert.equal(rig.view.getUint16(area, true), 0x27f);
  assert.equal(rig.view.getUint16(area + 2, true), 0x1000);
  assert.equal(rig.view.getUint8(area + 4), 0xfc);
  assert.equal(rig.view.getUint32(area + 24, true), 0x1fa0);
  assert.equal(rig.view.getUint32(area + 28, true), 0xffff);
  assert.equal(quad(rig, area + 32), 0x8000000000000002n, "ST(0) is register 2 with TOP = 2");
  assert.equal(rig.view.getUint16(area + 40, true), 0x4001);
  assert.equal(quad(rig, area + 32 + 7 * 16), 0x8000000000000001n);
  assert.equal(quad(rig, area + 160 + 15 * 16), 0x0f0f0f0f0f0f0f0fn);
  view.setBigUint64(VECTOR_BASE + 5 * 64, 0n, true);
  view.setBigUint64(X87_BASE + 3 * 16, 0n, true);
  rig.engine.set(MXCSR, 0x1f80);
  execute(rig, `mov eax, ${area}; fxrstor64 [rax]; hlt`);
  assert.equal(view.getBigUint64(VECTOR_BASE + 5 * 64, true), 0x0505050505050505n);
  assert.equal(view.getBigUint64(X87_BASE + 3 * 16, true), 0x8000000000000003n);
  assert.equal(rig.engine.get(MXCSR), 0x1fa0);
  rig.view.setUint32(area + 24, 0x10000, true);
  rig.longMode().run(assemble(`mov eax, ${area}; fxrstor [rax]`, AT.CODE));
  assert.equal(rig.caught(), 13, "reserved bit of MXCSR");
  rig.longMode().run(assemble(`mov eax, ${area + 8}; fxsave [rax]`, AT.CODE));
  assert.equal(rig.caught(), 13, "alignment");
});

test("XSAVE, XSAVEC and XRSTOR move the components asked for", () => {
  const rig = machine().longMode();
  const area = AT.DATA;
  rig.bytes.fill(0xee, area, area + 1024);
  rig.bytes.fill(0, area + 512, area + 576);
  execute(rig, "xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv; hlt");
  assert.equal(rig.engine.get(XCR0), 3);
  const view = fill(rig);
  execute(rig, `mov ebx, ${area}; xor edx, edx; mov eax, 2; xsave64 [rbx]; hlt`);
  assert.equal(rig.view.getUint16(area, true), 0xeeee, "x87 was not asked for");
  assert.equal(quad(rig, area + 512), 2n);
  assert.equal(quad(rig, area + 160 + 16), 0x0101010101010101n);
  execute(rig, `mov ebx, ${area}; mov eax, 3; xsavec64 [rbx]; hlt`);
  assert.equal(quad(rig, area + 512), 3n);
  assert.equal(quad(rig, area + 520), 0x8000000000000003n);
  // A component that the image does not hold is initialised.
  rig.view.setBigUint64(area + 512, 1n, true);
  execute(rig, `mov ebx, ${area}; mov eax, 3; xrstor64 [rbx]; hlt`);
  assert.equal(view.getBigUint64(VECTOR_BASE + 64, true), 0n);
  assert.equal(rig.engine.get(MXCSR), 0x1f80);
  assert.equal(rig.engine.get(FTW), 0xfc);
  rig.view.setBigUint64(area + 512, 4n, true);
  rig.run(assemble(`mov ebx, ${area}; mov eax, 3; xrstor64 [rbx]`, AT.CODE));
  assert.equal(rig.caught(), 13, "a component that is not enabled");
  rig.longMode().run(assemble("xor ecx, ecx; xor edx, edx; mov eax, 2; xsetbv", AT.CODE));
  assert.equal(rig.caught(), 13, "x87 cannot be disabled");
});

test("XGETBV with ECX = 1 is there with XGETBV1 (SDM Vol. 2D XGETBV)", () => {
  for (const [model, index, vector] of [
    ["max", 0, -1],
    ["max", 1, -1],
    ["max", 2, 13],
    ["x86-64-v2,+xsave", 0, -1],
    ["x86-64-v2,+xsave", 1, 13],
  ] as const) {
    const rig = machine(model).longMode();
    rig.engine.set(CR4, (rig.engine.get(CR4) as number) | CR4_BIT.OSXSAVE);
    rig.engine.set(XCR0, 3);
    rig.run([0xb9, index, 0, 0, 0, 0x0f, 0x01, 0xd0, 0xf4]); // mov ecx, index; xgetbv; hlt
    assert.equal(rig.caught(), vector, `${model}, ${index}`);
    if (vector < 0) assert.equal(rig.engine.gpr(0), 3n);
  }
});

test("the time stamp counter moves with IA32_TSC_ADJUST", () => {
  const rig = machine("max", { tscNow: () => 5000 }).longMode();
  execute(rig, "rdtsc; mov esi, eax; mov ecx, 0x3b; mov eax, 100; xor edx, edx; wrmsr; rdtsc; mov edi, eax; hlt");
  assert.equal(rig.engine.gpr(6), 5000n);
  assert.equal(rig.engine.gpr(7), 5100n);
  execute(rig, "mov ecx, 0x10; mov eax, 7; xor edx, edx; wrmsr; rdtsc; hlt");
  assert.equal(rig.engine.gpr(0), 7n);
  assert.equal(rig.engine.get(TSC_ADJUST), BigInt.asUintN(64, -4993n));
});

test("CPUID follows the state", () => {
  const rig = machine("max", { readMsr: (msr) => (msr === 0x1b ? [0xfee00900, 0] : undefined) }).longMode();
  const cpuid = (leaf: number, subleaf = 0): number[] => {
    execute(rig, `mov eax, ${leaf}; mov ecx, ${subleaf}; cpuid; hlt`);
    return [0, 3, 1, 2].map((register) => Number(rig.engine.gpr(register)));
  };
  const text = (...values: number[]): string => Buffer.from(new Uint32Array(values).buffer).toString("latin1");
  const [max, b, c, d] = cpuid(0);
  assert.equal(max, 0x1f);
  assert.equal(text(b, d, c), "GenuineIntel");
  const [, , ecx, edx] = cpuid(1);
  assert.equal((ecx >>> 27) & 1, 1, "OSXSAVE, since CR4 has it set");
  assert.equal((edx >>> 9) & 1, 1, "APIC");
  assert.deepEqual(cpuid(0x99999), cpuid(0x1f), "beyond the highest leaf");
  assert.equal(cpuid(0x80000000)[0], 0x80000008);
  assert.equal(cpuid(0xb, 5)[2], 5);
  assert.equal(cpuid(0xd, 0)[1], 576);
  assert.deepEqual(cpuid(0x15), [1, 2, 1e9, 0]);
  assert.equal(cpuid(0x40000000)[0], 0x40000000);
  assert.deepEqual(cpuid(0x40000005), [0, 0, 0, 0]);
});

test("INS and OUTS move between ports and memory, and REP can be restarted", () => {
  const rig = machine().longMode();
  rig.input = 0x41424344;
  execute(rig, `mov edi, ${AT.DATA}; mov ecx, 3; mov edx, 0x1f0; rep insw; hlt`);
  assert.equal(rig.engine.gpr(1), 0n);
  assert.equal(rig.engine.gpr(7), BigInt(AT.DATA + 6));
  assert.equal(quad(rig, AT.DATA) & 0xffffffffffffn, 0x434443444344n);
  execute(rig, `mov esi, ${AT.DATA}; mov ecx, 2; mov edx, 0x1f0; rep outsd; mov ecx, 0; rep outsb; hlt`);
  assert.deepEqual(
    rig.ports.map(({ port, bytes, value }) => [port, bytes, value >>> 0]),
    [
      [0x1f0, 4, 0x43444344],
      [0x1f0, 4, rig.view.getUint32(AT.DATA + 4, true)],
    ],
  );
  rig.ports.length = 0;
  execute(rig, "mov dx, 0x80; mov eax, 0x12345678; out dx, al; out dx, ax; out 0x81, eax; in ax, 0x60; hlt");
  assert.deepEqual(
    rig.ports.map(({ port, bytes, value }) => [port, bytes, value >>> 0]),
    [
      [0x80, 1, 0x78],
      [0x80, 2, 0x5678],
      [0x81, 4, 0x12345678],
    ],
  );
  assert.equal(rig.engine.gpr(0), 0x12344344n);
});

test("CPUID tells no local APIC where IA32_APIC_BASE has it disabled (SDM Vol. 3A 11.4.3)", () => {
  const bits = (model: string, base: number): readonly number[] => {
    const rig = machine(model, { readMsr: (msr) => (msr === 0x1b ? [base, 0] : undefined) }).longMode();
    assert.equal(rig.run([0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xf4]), EXIT.HLT); // mov eax, 1; cpuid; hlt
    const [ecx, edx] = [1, 2].map((register) => Number(rig.engine.gpr(register)));
    return [(edx >>> 9) & 1, (ecx >>> 21) & 1];
  };
  // APIC, and x2APIC, which is of the model.
  assert.deepEqual(bits("max", 0xfee00900), [1, 1]);
  assert.deepEqual(bits("max", 0xfee00d00), [1, 1]);
  assert.deepEqual(bits("max", 0xfee00100), [0, 1]);
  assert.deepEqual(bits("max,-apic", 0xfee00900), [0, 0]);
});

test("models by name and flags, and clear errors", () => {
  const has = (text: string, flag: string): boolean => parseCpuModel(text).features.has(flag);
  assert.ok(has("x86-64-v2,+movbe", "movbe"));
  assert.ok(!has("x86-64-v2,-sse4_2", "sse4_2"));
  assert.ok(!has("x86-64-v2,-sse2", "sse4.1".replace(".", "_")), "what needs it goes too");
  assert.ok(has("x86-64,+sse4.2", "ssse3"), "what it needs comes too");
  assert.ok(!has("max,pcid=off", "invpcid"));
  assert.throws(() => parseCpuModel("pentium9"), CpuModelError);
  assert.throws(() => parseCpuModel("max,+frobnicate"), /unknown CPU flag "frobnicate"/);
  assert.throws(() => parseCpuModel("max,+avx2"), /not implemented/);
  assert.throws(() => parseCpuModel("max,movbe"), /must be written/);
  for (const name of CPU_MODEL_NAMES) {
    const model = parseCpuModel(name);
    for (const feature of model.features) assert.ok(Object.hasOwn(FEATURES, feature), feature);
    assert.ok(cpuidTable(model, TOPOLOGY).length > 0);
  }
});

test("every feature that instructions name is in the table of features", () => {
  for (const { name, feature } of INSTRUCTIONS) {
    if (feature !== undefined) assert.ok(Object.hasOwn(FEATURES, feature), `${name}: ${feature}`);
  }
});

test("an instruction whose feature the model lacks is undefined", () => {
  const rig = machine(parseCpuModel("x86-64,-rdrand")).longMode();
  rig.run(assemble("rdrand eax", AT.CODE));
  assert.equal(rig.caught(), 6);
  assert.equal(engineModel(parseCpuModel("486"), TOPOLOGY).signature, 0x480);
});
