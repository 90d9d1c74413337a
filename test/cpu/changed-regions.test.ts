// Code that changes under a region that runs it: each loop first becomes hot with its stores going elsewhere, and then changes itself
// (SDM Vol. 3A 11.6, 8.1.3). What guests do of this by themselves is in guests/self-modifying.S too.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { ACTIVITY, RIP } from "../../src/isa/state.ts";
import { AT, everything, Rig } from "./rig.ts";

const PAGE = 4096;
/** Linear addresses of a page table of the test's own. */
const WINDOW = 0x40000000;
const TABLE = 0x40000;
const HLT = 0xf4;

/** `registers` by number. The rest is as it was. */
function go(rig: Rig, at: number, registers: { readonly [number: number]: number | bigint }, slice = 50): void {
  const { engine } = rig;
  for (const [number, value] of Object.entries(registers)) engine.setGpr(Number(number), BigInt(value));
  engine.set(ACTIVITY, 0);
  engine.set(RIP, at);
  let reason: number = EXIT.BUDGET;
  for (let n = 0; n < 1000 && reason === EXIT.BUDGET; n++) reason = engine.run(slice);
  assert.equal(reason, EXIT.HLT);
  assert.equal(rig.caught(), -1);
}

/** Maps the pages of the window to guest-physical pages. */
function map(rig: Rig, pages: readonly number[]): void {
  const directory = TABLE + PAGE;
  rig.view.setBigUint64(AT.PDPT + 8, BigInt(directory) | 7n, true);
  rig.view.setBigUint64(directory, BigInt(TABLE) | 7n, true);
  pages.forEach((page, n) => {
    rig.view.setBigUint64(TABLE + n * 8, BigInt(page) | 7n, true);
  });
  rig.engine.registersChanged();
}

for (const [way, threshold] of [
  ["interpreted", undefined],
  ["translated", 1],
] as const) {
  const made = (): Rig => new Rig(everything(), {}, threshold).longMode();
  const assertHot = (rig: Rig): void => {
    if (threshold !== undefined) assert.ok(Number(rig.engine.statistics().regions) > 0);
  };
  const [RAX, RCX, RDX, RBX, RSI, RDI, R8, R9] = [0, 1, 2, 3, 6, 7, 8, 9];

  test(`${way}: a store into an instruction before it, in the same loop`, () => {
    const rig = made();
    // L: add eax, 1; inc byte [rdi]; dec ecx; jnz L; hlt
    rig.write(AT.CODE, [0x83, 0xc0, 1, 0xfe, 0x07, 0xff, 0xc9, 0x75, 0xf7, HLT]);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 50, [RDI]: AT.DATA });
    assertHot(rig);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 20, [RDI]: AT.CODE + 2 });
    assert.equal(rig.engine.gpr(RAX), 210n);
  });

  test(`${way}: a store into the next instruction`, () => {
    const rig = made();
    // L: inc byte [rdi]; add eax, 1; dec ecx; jnz L; hlt
    rig.write(AT.CODE, [0xfe, 0x07, 0x83, 0xc0, 1, 0xff, 0xc9, 0x75, 0xf7, HLT]);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 50, [RDI]: AT.DATA });
    assertHot(rig);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 20, [RDI]: AT.CODE + 4 });
    assert.equal(rig.engine.gpr(RAX), 230n);
  });

  test(`${way}: a string instruction that writes over the one behind it`, () => {
    const rig = made();
    // L: mov edi, ebx; mov edx, ecx; mov ecx, 1; rep stosb; mov ecx, edx; inc eax; add esi, 1 (the byte); dec ecx; jnz L; hlt
    const program = [
      0x89,
      0xdf,
      0x89,
      0xca,
      0xb9,
      1,
      0,
      0,
      0,
      0xf3,
      0xaa,
      0x89,
      0xd1,
      0xff,
      0xc0,
      0x83,
      0xc6,
      1,
      0xff,
      0xc9,
      0x75,
      0xea,
      HLT,
    ];
    rig.write(AT.CODE, program);
    go(rig, AT.CODE, { [RAX]: 1, [RCX]: 50, [RBX]: AT.DATA, [RSI]: 0 });
    assertHot(rig);
    go(rig, AT.CODE, { [RAX]: 1, [RCX]: 20, [RBX]: AT.CODE + 17, [RSI]: 0 });
    assert.equal(rig.engine.gpr(RSI), 210n);
  });

  test(`${way}: a store through a second mapping of the page`, () => {
    const rig = made();
    map(rig, [AT.CODE, AT.DATA]);
    rig.write(AT.CODE, [0x83, 0xc0, 1, 0xfe, 0x07, 0xff, 0xc9, 0x75, 0xf7, HLT]);
    // Hot at one address, changed through the other, and the other way round.
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 50, [RDI]: WINDOW + PAGE });
    assertHot(rig);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 20, [RDI]: WINDOW + 2 });
    assert.equal(rig.engine.gpr(RAX), 210n);
    go(rig, WINDOW, { [RAX]: 0, [RCX]: 20, [RDI]: AT.DATA });
    go(rig, WINDOW, { [RAX]: 0, [RCX]: 3, [RDI]: AT.CODE + 2 });
    assert.equal(rig.engine.gpr(RAX), BigInt(21 + 22 + 23));
  });

  test(`${way}: a store over the end of a page, into both pages of a loop`, () => {
    const rig = made();
    const end = AT.CODE + PAGE;
    // L: mov [rdi], rdx; add rdx, r8; nop; add eax, imm32 | (the next page) add ebx, imm32; dec ecx; jnz L; hlt
    const program = [
      0x48,
      0x89,
      0x17,
      0x4c,
      0x01,
      0xc2,
      0x0f,
      0x1f,
      0x44,
      0,
      0,
      0x05,
      1,
      0,
      0,
      0,
      0x81,
      0xc3,
      1,
      0,
      0,
      0,
      0xff,
      0xc9,
      0x0f,
      0x85,
      0xe2,
      0xff,
      0xff,
      0xff,
      HLT,
    ];
    rig.write(end - 16, program);
    const step = 1n + (1n << 48n);
    const first = 1n + (0xc381n << 32n) + (1n << 48n);
    const start = { [RAX]: 0, [RBX]: 0, [RDX]: first, [R8]: step };
    go(rig, end - 16, { ...start, [RCX]: 50, [RDI]: AT.DATA });
    assertHot(rig);
    go(rig, end - 16, { ...start, [RCX]: 20, [RDI]: end - 4 });
    assert.equal(rig.engine.gpr(RAX), 210n);
    assert.equal(rig.engine.gpr(RBX), 210n);
  });

  test(`${way}: DMA into a loop between two of its slices`, () => {
    const rig = made();
    // L: add eax, 1; dec ecx; jnz L; hlt
    rig.write(AT.CODE, [0x83, 0xc0, 1, 0xff, 0xc9, 0x75, 0xf9, HLT]);
    go(rig, AT.CODE, { [RAX]: 0, [RCX]: 50 });
    assertHot(rig);
    const { engine } = rig;
    engine.setGpr(RAX, 0n);
    engine.setGpr(RCX, 20n);
    engine.set(RIP, AT.CODE);
    for (let n = 1; n <= 20; n++) {
      rig.write(AT.CODE + 2, [n]);
      // A round at a time; the last one goes on to HLT.
      assert.equal(engine.run(3), EXIT.BUDGET);
    }
    assert.equal(engine.gpr(RAX), 210n);
  });

  for (const [how, flush] of [
    // invlpg [rdi]
    ["INVLPG", [0x0f, 0x01, 0x3f]],
    // mov rax, cr3; mov cr3, rax
    ["MOV CR3", [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]],
  ] as const) {
    test(`${way}: a page that is remapped under the loop that calls into it, by ${how}`, () => {
      const rig = made();
      const [one, two] = [AT.DATA + PAGE, AT.DATA + 2 * PAGE];
      map(rig, [one]);
      // add edx, 1; ret, and add edx, 256; ret
      rig.write(one, [0x83, 0xc2, 1, 0xc3]);
      rig.write(two, [0x81, 0xc2, 0, 1, 0, 0, 0xc3]);
      // L: xor [rsi], r9; flush; call rdi; dec ecx; jnz L; hlt
      const body = [0x4c, 0x31, 0x0e, ...flush, 0xff, 0xd7, 0xff, 0xc9];
      rig.write(AT.CODE, [...body, 0x75, 0x100 - body.length - 2, HLT]);
      const start = { [RDX]: 0, [RDI]: WINDOW, [R9]: one ^ two };
      go(rig, AT.CODE, { ...start, [RCX]: 50, [RSI]: AT.DATA });
      assert.equal(rig.engine.gpr(RDX), 50n);
      assertHot(rig);
      go(rig, AT.CODE, { ...start, [RCX]: 41, [RSI]: TABLE });
      assert.equal(rig.engine.gpr(RDX), BigInt(21 * 256 + 20));
    });
  }

  test(`${way}: a loop that remaps the page that it runs in`, () => {
    const rig = made();
    const [one, two] = [AT.DATA + PAGE, AT.DATA + 2 * PAGE];
    map(rig, [one]);
    // L: xor [rsi], r9; invlpg [rdi]; add edx, 1 or 64 (by page); dec ecx; jnz L; hlt
    const program = (step: number): number[] => [
      0x4c,
      0x31,
      0x0e,
      0x0f,
      0x01,
      0x3f,
      0x83,
      0xc2,
      step,
      0xff,
      0xc9,
      0x75,
      0xf3,
      HLT,
    ];
    rig.write(one, program(1));
    rig.write(two, program(64));
    const start = { [RDX]: 0, [RDI]: WINDOW, [R9]: one ^ two };
    go(rig, WINDOW, { ...start, [RCX]: 50, [RSI]: AT.DATA });
    assert.equal(rig.engine.gpr(RDX), 50n);
    assertHot(rig);
    for (let again = 0; again < 3; again++) {
      go(rig, WINDOW, { ...start, [RCX]: 40, [RSI]: TABLE });
      assert.equal(rig.engine.gpr(RDX), BigInt(20 * 64 + 20));
    }
  });
}
