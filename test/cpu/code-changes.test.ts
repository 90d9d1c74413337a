// Code that changes from outside the processor: DMA, port input into code, and caches that run full (SDM Vol. 3A 11.6; what guests can do
// by themselves is in guests/self-modifying.S).

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { RIP } from "../../src/isa/state.ts";
import { AT, everything, Rig } from "./rig.ts";

const HLT = 0xf4;
const NOP = 0x90;
/** MOV EAX, imm32 */
const movEax = (value: number): number[] => [
  0xb8,
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  value >>> 24,
];
const PAGE = 4096;

function again(rig: Rig, at: number = AT.CODE): bigint {
  rig.engine.set(RIP, at);
  assert.equal(rig.engine.run(100000), EXIT.HLT);
  return rig.engine.gpr(0);
}

/** Goes on in small slices, between which hot code is translated. */
function finish(rig: Rig, reason: number): number {
  let last = reason;
  for (let slice = 0; last === EXIT.BUDGET && slice < 1000; slice++) last = rig.engine.run(20);
  return last;
}

for (const [way, threshold] of [
  ["interpreted", undefined],
  ["translated", 1],
] as const) {
  test(`${way}: DMA into code that has run`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    rig.run([...movEax(1), HLT]);
    for (let value = 2; value < 50; value++) {
      rig.write(AT.CODE + 1, [value]);
      assert.equal(again(rig), BigInt(value));
    }
  });

  test(`${way}: an instruction counts once, though its block was found by an old link`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    // jmp short +0; then the block that changes: mov eax, imm32; hlt
    const program = [0xeb, 0, ...movEax(1), HLT];
    rig.run(program);
    for (let value = 2; value < 8; value++) {
      if (value % 2 === 0) rig.write(AT.CODE + 3, [value]);
      const before = rig.engine.retired();
      again(rig);
      assert.equal(rig.engine.retired() - before, 3);
    }
  });

  test(`${way}: DMA across a page end, into both halves of an instruction`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    const at = AT.CODE + PAGE - 2;
    rig.run([...movEax(0x11223344), HLT], at);
    assert.equal(rig.engine.gpr(0), 0x11223344n);
    rig.write(at, [...movEax(0x55667788)]);
    assert.equal(again(rig, at), 0x55667788n);
    rig.write(AT.CODE + PAGE, [0x99]);
    assert.equal(again(rig, at), 0x55669988n);
    rig.write(at + 1, [0xaa]);
    assert.equal(again(rig, at), 0x556699aan);
  });

  test(`${way}: DMA over many pages drops the code in each`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    const pages = Array.from({ length: 20 }, (_, n) => AT.CODE + n * PAGE);
    for (const at of pages) rig.run([...movEax(1), HLT], at);
    const image = new Uint8Array(pages.length * PAGE);
    pages.forEach((_, n) => {
      image.set([...movEax(n + 100), HLT], n * PAGE);
    });
    rig.write(AT.CODE, image);
    pages.forEach((at, n) => {
      assert.equal(again(rig, at), BigInt(n + 100));
    });
  });

  test(`${way}: a device that writes into the instruction behind the OUT which started it`, () => {
    const rig: Rig = new Rig(everything(), { portOut: () => rig.write(AT.CODE + 3, [7]) }, threshold).longMode();
    // out %al, $0x80; mov $1, %eax; hlt
    rig.run([0xe6, 0x80, ...movEax(1), HLT]);
    assert.equal(rig.engine.gpr(0), 7n);
  });

  test(`${way}: a device that writes into the running loop`, () => {
    let count = 0;
    const rig: Rig = new Rig(
      everything(),
      {
        portOut: () => {
          count++;
          // The loop's jump becomes HLT after 100 rounds.
          if (count === 100) rig.write(AT.CODE + 4, [HLT]);
        },
      },
      threshold,
    ).longMode();
    // 1: out %al, $0x80; inc %eax; jmp 1b
    assert.equal(finish(rig, rig.run([0xe6, 0x80, 0xff, 0xc0, 0xeb, 0xfa], AT.CODE, 20)), EXIT.HLT);
    assert.equal(rig.engine.gpr(0), 100n);
  });

  test(`${way}: INSB into the instruction behind it`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    rig.input = HLT;
    rig.engine.setGpr(7, BigInt(AT.CODE + 1));
    // insb; nop (becomes hlt); inc %eax; hlt
    rig.run([0x6c, NOP, 0xff, 0xc0, HLT]);
    assert.equal(rig.engine.get(RIP), BigInt(AT.CODE + 2));
    assert.equal(rig.engine.gpr(0), 0n);
  });

  test(`${way}: REP INSB over code that has run, page after page`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    for (let n = 0; n < 4; n++) rig.run([...movEax(1), HLT], AT.DATA + n * PAGE);
    rig.input = HLT;
    rig.engine.setGpr(7, BigInt(AT.DATA));
    rig.engine.setGpr(1, BigInt(4 * PAGE));
    rig.run([0xf3, 0x6c, HLT]);
    for (let n = 0; n < 4; n++) {
      again(rig, AT.DATA + n * PAGE);
      assert.equal(rig.engine.get(RIP), BigInt(AT.DATA + n * PAGE + 1));
    }
  });

  test(`${way}: more blocks than there is room for`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    const at = 0x300000;
    const blocks = 700000;
    // inc %eax; jmp to the next
    const code = new Uint8Array(blocks * 4 + 1);
    for (let n = 0; n < blocks; n++) code.set([0xff, 0xc0, 0xeb, 0x00], n * 4);
    code[blocks * 4] = HLT;
    rig.write(at, code);
    for (let round = 1; round <= 2; round++) {
      rig.engine.set(RIP, at);
      assert.equal(rig.engine.run(blocks * 4), EXIT.HLT);
      assert.equal(rig.engine.gpr(0), BigInt(blocks * round));
    }
    assert.ok(rig.engine.statistics().codeFlushes > 1);
    // Changes are still seen afterwards.
    rig.write(at, [HLT]);
    again(rig, at);
    assert.equal(rig.engine.get(RIP), BigInt(at + 1));
  });

  test(`${way}: more pages in the TLB than its lists hold`, () => {
    const rig = new Rig(everything(), {}, threshold).longMode();
    // 512 pages of RAM, mapped over and over from 1 GiB on
    const table = 0x40000;
    const directory = 0x41000;
    for (let n = 0; n < 512; n++) {
      rig.view.setBigUint64(table + n * 8, BigInt(AT.DATA + n * PAGE) | 7n, true);
      rig.view.setBigUint64(directory + n * 8, BigInt(table) | 7n, true);
    }
    rig.view.setBigUint64(AT.PDPT + 8, BigInt(directory) | 7n, true);
    const pages = 50000;
    rig.engine.setGpr(3, 0x40000000n);
    rig.engine.setGpr(1, BigInt(pages));
    // 1: incl (%rbx); add $4096, %rbx; dec %ecx; jnz 1b; hlt
    const loop = [0xff, 0x03, 0x48, 0x81, 0xc3, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf3, HLT];
    assert.equal(rig.run(loop, AT.CODE, pages * 8), EXIT.HLT);
    let sum = 0;
    for (let n = 0; n < 512; n++) sum += rig.view.getUint32(AT.DATA + n * PAGE, true);
    assert.equal(sum, pages);
  });
}
