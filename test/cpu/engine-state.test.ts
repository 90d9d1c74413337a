// Saving and restoring a vCPU in mid-work, and the run loop's contract: budgets, pending events, memory written from outside.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { CPL, RIP, SHADOW, STATE_FIELDS } from "../../src/isa/state.ts";
import { INJECT } from "../../src/vmm/engine.ts";
import { AT, Rig } from "./rig.ts";

/** Mixes registers, flags, memory and the x87 and vector state in a loop: mov ecx, 2000; L: ...; dec ecx; jnz L; hlt. */
const WORK = [
  ...[0xb9, 0xd0, 0x07, 0, 0], // mov ecx, 2000
  ...[0xd9, 0xe8], // fld1
  ...[0x48, 0x01, 0xc8], // L: add rax, rcx
  ...[0x48, 0x11, 0xc3], // adc rbx, rax
  ...[0x48, 0x89, 0x1c, 0x25, 0, 0, 0x20, 0], // mov [0x200000], rbx
  ...[0x66, 0x48, 0x0f, 0x6e, 0xc3], // movq xmm0, rbx
  ...[0x66, 0x0f, 0xd4, 0xc8], // paddq xmm1, xmm0
  ...[0xd8, 0xc0], // fadd st, st0
  ...[0xff, 0xc9], // dec ecx
  ...[0x75, 0xe3], // jnz L
  0xf4,
];

function finish(rig: Rig): void {
  for (let rounds = 0; rounds < 1e6; rounds++) {
    const reason = rig.engine.run(1000);
    if (reason === EXIT.HLT) return;
    assert.equal(reason, EXIT.BUDGET);
  }
  assert.fail("the guest does not come to its HLT");
}

test("a vCPU saved at any point of its work goes on identically in another engine", () => {
  const whole = new Rig().longMode();
  whole.run(WORK, AT.CODE, 1);
  finish(whole);
  const expected = whole.engine.save();
  for (const cut of [1, 7, 500, 9999]) {
    const first = new Rig().longMode();
    first.run(WORK, AT.CODE, cut);
    const section = first.engine.save();
    const second = new Rig();
    second.bytes.set(first.bytes);
    second.engine.memoryWritten(0, 1 << 24);
    second.engine.restore(structuredClone(section));
    finish(second);
    assert.deepEqual(second.engine.save(), expected, `cut after ${cut} instructions`);
    assert.equal(second.view.getBigUint64(0x200000, true), whole.view.getBigUint64(0x200000, true));
  }
});

test("every register that is not derived is in the saved state, and none may be missing on restore", () => {
  const rig = new Rig().longMode();
  const section = rig.engine.save();
  for (const field of STATE_FIELDS) assert.equal(field.name in section.fields, field.saved, field.name);
  const { cr3, ...rest } = section.fields;
  assert.ok(cr3 !== undefined);
  assert.throws(() => rig.engine.restore({ ...section, fields: rest }), /vcpu\.cr3 is missing/);
  assert.throws(() => rig.engine.restore({ ...section, version: 99 }), /version 99/);
});

test("flags written from outside read back, in every combination of the arithmetic ones", () => {
  const rig = new Rig().longMode();
  for (let n = 0; n < 64; n++) {
    const flags = 2 | (n & 1) | ((n & 2) << 1) | ((n & 4) << 2) | ((n & 8) << 3) | ((n & 16) << 3) | ((n & 32) << 6);
    rig.engine.setRflags(flags);
    assert.equal(rig.engine.rflags(), flags);
    // pushfq; pop rax; hlt
    assert.equal(rig.run([0x9c, 0x58, 0xf4]), EXIT.HLT);
    assert.equal(rig.engine.gpr(0), BigInt(flags));
  }
});

test("an interrupt that waits is offered as soon as the guest accepts it, and not in the shadow of STI", () => {
  const rig = new Rig().longMode();
  // cli; nop; sti; inc eax; inc eax; hlt
  rig.write(AT.CODE, [0xfa, 0x90, 0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4]);
  rig.engine.set(RIP, AT.CODE);
  rig.engine.setPendingEvents(1);
  let reason: number = EXIT.BUDGET;
  while (reason === EXIT.BUDGET) reason = rig.engine.run(100);
  assert.equal(reason, EXIT.INTERRUPT_WINDOW);
  assert.ok(rig.engine.canInject(INJECT.INTERRUPT));
  assert.equal(rig.engine.gpr(0), 1n, "the instruction after STI has run, and no more");
  assert.ok(rig.engine.inject(INJECT.INTERRUPT, 0x30));
  rig.engine.setPendingEvents(0);
  assert.equal(rig.engine.run(100), EXIT.HLT);
  assert.equal(rig.caught(), 0x30);
});

test("a delivery ends the interrupt shadow: what waits comes before the handler's first instruction (SDM Vol. 3A 6.8.3)", () => {
  // sti; ud2, through a trap gate, so that IF stays set
  const rig = new Rig().longMode();
  rig.bytes[AT.IDT + 6 * 16 + 5] = 0xef;
  rig.write(AT.CODE, [0xfb, 0x0f, 0x0b]);
  rig.engine.set(RIP, AT.CODE);
  rig.engine.setPendingEvents(1);
  let reason: number = EXIT.BUDGET;
  while (reason === EXIT.BUDGET) reason = rig.engine.run(100);
  assert.equal(reason, EXIT.INTERRUPT_WINDOW);
  assert.equal(rig.engine.get(RIP), BigInt(AT.HANDLERS + 6 * 16));
  assert.ok(rig.engine.canInject(INJECT.INTERRUPT));
  // A delivery from outside, whatever the shadow was
  for (const shadow of [1, 2]) {
    const other = new Rig().longMode();
    other.engine.set(RIP, AT.CODE);
    other.engine.set(SHADOW, shadow);
    assert.ok(other.engine.inject(INJECT.NMI, 2));
    assert.equal(other.engine.get(SHADOW), 0);
  }
});

test("memory written from outside is executed as it now is", () => {
  const rig = new Rig().longMode();
  assert.equal(rig.run([0xb8, 1, 0, 0, 0, 0xf4]), EXIT.HLT);
  assert.equal(rig.engine.gpr(0), 1n);
  assert.equal(rig.run([0xb8, 2, 0, 0, 0, 0xf4]), EXIT.HLT);
  assert.equal(rig.engine.gpr(0), 2n);
});

test("a budget bounds a loop that never ends, and a guest that only faults", () => {
  const rig = new Rig().longMode();
  assert.equal(rig.run([0xeb, 0xfe], AT.CODE, 5000), EXIT.BUDGET);
  assert.ok(rig.engine.retired() < 10000);
  // The #UD handler itself is undefined: ud2 at every entry, with an IDT that leads back to it.
  const spin = new Rig().longMode();
  spin.write(AT.HANDLERS + 6 * 16, [0x48, 0x83, 0xc4, 0x28, 0x0f, 0x0b]);
  assert.equal(spin.run([0x0f, 0x0b], AT.CODE, 5000), EXIT.BUDGET);
});

test("at CPL 3 a privileged instruction raises #GP, and the handler runs at CPL 0", () => {
  const rig = new Rig().longMode(3);
  assert.equal(rig.run([0xf4]), EXIT.HLT);
  assert.equal(rig.caught(), 13);
  assert.equal(rig.engine.get(CPL), 0);
});
